"""Layers are fitted as a slow solver would fit them, and only where answers get likelier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import answered_samples
import numpy as np
import pytest
import torch
from answered_samples import logits
from interruptions import damage, interrupt

from interlace.checkpoint.layers import StoredLayers
from interlace.errors import ContractError, InputError
from interlace.model import states
from interlace.model.bypass import bypassed
from interlace.model.chat import Inputs
from interlace.model.decoder import decoder_layers
from interlace.model.open import open_model
from interlace.model.states import state_before
from interlace.pruning import compensation
from interlace.pruning.compensation import HELD_OUT, RIDGES, compensate, cuts_of, pruned
from interlace.pruning.new_values import CheckpointStore
from interlace.pruning.passage import Passage
from interlace.samples.answered_rows import AnsweredRows, answer_tokens


@pytest.fixture(scope="module")
def examples(dense: Any, processor: Any) -> list[Inputs]:
    """Whole conversations whose answers are what the dense model would say."""
    return answered_samples.answered_by(dense, answered_samples.encoded(processor, 24))


@pytest.fixture(scope="module")
def rows(examples: list[Inputs], tmp_path_factory: pytest.TempPathFactory) -> AnsweredRows:
    return answered_samples.saved(examples, tmp_path_factory.mktemp("rows"))


@pytest.mark.parametrize(
    ("drop", "cuts"),
    [
        ([3], [(2, (3,)), (4, ()), (5, ())]),
        ([3, 5, 4], [(2, (3, 4, 5))]),
        ([0, 1, 4], [(None, (0, 1)), (2, ()), (3, (4,)), (5, ())]),
        ([1, 3, 5], [(0, (1,)), (2, (3,)), (4, (5,))]),
    ],
    ids=str,
)
def test_each_kept_layer_from_the_one_before_the_first_dropped_is_fitted(
    drop: list[int], cuts: list[Any]
) -> None:
    assert [(cut.layer, cut.dropped) for cut in cuts_of(drop, 6)] == cuts
    assert [cut.end for cut in cuts_of(drop, 6)][-1] == 6


@torch.inference_mode()
def slow_sides(
    dense: Any, drop: list[int], layer: int, rows: AnsweredRows, new: Any
) -> tuple[Any, Any]:
    """The input of a layer's last linear layer and the error after it, relative, from whole passes.

    All earlier layers have their new weights.
    """
    kept = [number for number in range(6) if number not in drop]
    position = kept.index(layer)
    follower = [*kept, 6][position + 1]
    seen: dict[None, torch.Tensor] = {}
    signals, errors = [], []
    for number in range(len(rows.groups)):
        batch = rows.batch(number, dense.device)
        valid = batch["attention_mask"].bool()
        inputs, outputs = states.residual_states(dense, batch)
        target = [*inputs, outputs[-1]][follower][valid].double()
        with pruned(dense, drop, new):
            linear = decoder_layers(dense)[position].mlp.down_proj
            with states.hooked(
                {None: linear}, on_call=lambda k, args, _: seen.update({k: args[0]})
            ):
                inputs, outputs = states.residual_states(dense, batch)
        state = [*inputs, outputs[-1]][position + 1][valid].double()  # with features that enter
        length = target.norm(dim=-1, keepdim=True)
        signals.append((seen[None][valid].double() / length).numpy())
        errors.append(((target - state) / length).numpy())
    return np.concatenate(signals), np.concatenate(errors)


def slow_change(sides: tuple[Any, Any], ridge: float) -> Any:
    """D of the stacked problem over all valid tokens."""
    signal, error = sides
    columns, width = signal.shape[1], error.shape[1]
    strength = np.sqrt(ridge * np.mean(np.sum(signal**2, 0))) * np.eye(columns)
    stacked = np.concatenate([signal, strength])
    return np.linalg.lstsq(stacked, np.concatenate([error, np.zeros((columns, width))]))[0]


def healed_weights(dense: Any, layers: list[int]) -> dict[Any, torch.Tensor]:
    """Other values of all weights of some layers."""
    weights = [weight for layer in layers for weight in decoder_layers(dense)[layer].parameters()]
    return {weight: 1.25 * weight.detach() for weight in weights}


@pytest.mark.parametrize(
    ("drop", "healed"),
    [
        *(([4], []), ([3, 4], []), ([5], []), ([1], []), ([2, 4], []), ([0, 3], [])),
        *(([4], [3]), ([4], [5]), ([4], [1]), ([2, 3], [0, 1]), ([0, 3], [2])),
    ],
    ids=str,
)
@pytest.mark.usefixtures("every_map_kept")
def test_each_new_weight_is_the_old_one_and_the_slow_change_on_the_model_so_far(
    dense: Any, rows: AnsweredRows, drop: list[int], healed: list[int]
) -> None:
    so_far = healed_weights(dense, healed)
    result = compensate(dense, drop, rows, healed=so_far)
    fitted, heldout = rows.split(HELD_OUT)
    assert {*healed} <= {report.folded_into for report in result.reports}
    for report in result.reports:
        if report.folded_into is None:
            continue
        weight = decoder_layers(dense)[report.folded_into].mlp.down_proj.weight
        sides = slow_sides(dense, drop, report.folded_into, fitted, so_far)
        heldout_sides = slow_sides(dense, drop, report.folded_into, heldout, so_far)
        residuals = {}
        for ridge in RIDGES:
            change = slow_change(sides, ridge)
            rest = heldout_sides[1] - heldout_sides[0] @ change
            residuals[ridge] = (rest**2).sum(1).mean()
        assert report.ridge == min(residuals, key=residuals.__getitem__)
        assert report.residual_after == pytest.approx(residuals[report.ridge], rel=1e-4)
        before = (heldout_sides[1] ** 2).sum(1).mean()
        assert report.residual_before == pytest.approx(before, rel=1e-4)
        change = slow_change(sides, report.ridge)
        expected = so_far.get(weight, weight.detach()).numpy() + change.T
        np.testing.assert_allclose(result.weights[weight].numpy(), expected, atol=2e-4)
        assert np.abs(change).max() > 2e-3
        so_far[weight] = result.weights[weight]
    assert len(so_far) == len(result.weights)


def test_what_makes_answers_no_likelier_is_left_out(
    dense: Any, stored: StoredLayers, examples: list[Inputs], tmp_path: Path
) -> None:
    with bypassed(dense, [4]):  # any change makes the pruned model's own words less likely
        answered = answered_samples.answered_by(dense, examples)
    rows = answered_samples.saved(answered, tmp_path / "rows")
    store = CheckpointStore(stored, tmp_path / "scratch")
    result = compensate(dense, [4], rows, store)
    assert result.weights == store.replaced(result.reports) == {}
    for report in result.reports:
        assert not report.kept and report.heldout_after >= report.heldout_before
    assert result.heldout_after == result.heldout_before
    assert not list((tmp_path / "scratch").glob("*.safetensors"))


def slow_loss(dense: Any, rows: AnsweredRows, drop: list[int], weights: Any) -> float:
    total, tokens = 0.0, 0
    with pruned(dense, drop, weights), torch.inference_mode():
        for number in range(len(rows.groups)):
            batch = rows.batch(number, dense.device)
            total += answered_samples.slow_loss(dense, batch).item()
            tokens += answer_tokens(batch["labels"])
    return total / tokens


@pytest.mark.parametrize(
    ("drop", "healed"), [([3], []), ([2, 4], []), ([0, 1, 3, 5], []), ([3], [1, 2])], ids=str
)
def test_the_loss_falls_layer_by_layer_to_that_of_the_compensated_model(
    dense: Any, rows: AnsweredRows, examples: list[Inputs], drop: list[int], healed: list[int]
) -> None:
    expected, start = logits(dense, examples[1]), healed_weights(dense, healed)
    result = compensate(dense, drop, rows, healed=start)
    assert torch.equal(logits(dense, examples[1]), expected)  # the model is as it was
    heldout = rows.split(HELD_OUT)[1]
    plain = slow_loss(dense, heldout, drop, start)
    assert result.heldout_before == pytest.approx(plain, rel=1e-5)
    after = slow_loss(dense, heldout, drop, result.weights)
    assert result.heldout_after == pytest.approx(after, rel=1e-5)
    assert result.heldout_after < result.heldout_before
    loss = result.heldout_before
    for report in result.reports:
        assert report.heldout_before == loss
        loss = report.heldout_loss
        if report.folded_into is not None:
            assert 0 <= report.residual_after < report.residual_before
            assert report.kept is (report.heldout_after < report.heldout_before)
    assert result.heldout_after == loss
    changed = [w for w, value in result.weights.items() if value is not start.get(w)]
    assert len(changed) == sum(report.kept for report in result.reports)
    assert start.keys() <= result.weights.keys()


def test_a_run_that_begins_the_decoder_is_named(dense: Any, rows: AnsweredRows) -> None:
    first = compensate(dense, [0, 1], rows).reports[0]
    assert (first.cut, first.folded_into, first.kept) == ([0, 1], None, False)
    assert first.reason == "layer 0 is the first: no kept layer stands before it"


def test_visual_features_enter_as_in_the_pruned_model(dense: Any, rows: AnsweredRows) -> None:
    drop = [1, 4]
    passage = Passage(dense, drop, rows, 0)
    passage.advance_dense(2)
    passage.advance_pruned()
    for number, batch in enumerate(passage._batches):
        inputs = rows.batch(number, dense.device)
        layers = decoder_layers(dense)
        assert torch.equal(batch.dense, state_before(dense, inputs, layers[2]))
        with bypassed(dense, drop):
            assert torch.equal(batch.pruned, state_before(dense, inputs, layers[2]))
    assert any(features[1].any() for b in passage._batches for features in [b.pruned_features])


def test_no_layer_runs_from_the_start_again(dense: Any, rows: AnsweredRows) -> None:
    runs: list[int] = []
    with states.hooked(
        dict(enumerate(decoder_layers(dense))), on_call=lambda i, *_: runs.append(i)
    ):
        compensate(dense, [3], rows)
    fitted, heldout = (len(part.groups) for part in rows.split(HELD_OUT))
    batches = fitted + heldout
    check = 1
    first_layer = runs.count(0)
    assert first_layer == check + batches * (1 + 2)  # recorded; features, dense and pruned
    # layer 5: recorded, dense, signals, advanced; then judged once for each of 2, 4, 5 and before
    assert runs.count(5) == check + batches * 4 + heldout * 4


def test_what_judges_is_not_fitted_on(rows: AnsweredRows) -> None:
    fitted, held = rows.split(4)
    assert sorted([*fitted.paths, *held.paths]) == sorted(rows.paths)
    assert (len(fitted.paths), len(held.paths)) == (18, 6)


def test_an_interrupted_run_comes_to_the_same_bytes(
    dense: Any,
    stored: StoredLayers,
    rows: AnsweredRows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, resumed = (CheckpointStore(stored, tmp_path / name) for name in ("whole", "resumed"))
    expected = compensate(dense, [2, 4], rows, whole)
    files = whole.replaced(expected.reports)
    assert files
    calls = interrupt(monkeypatch, compensation.Repair, call=2, name="fit")
    with pytest.raises(KeyboardInterrupt):
        compensate(dense, [2, 4], rows, resumed)
    for _ in range(2):
        assert compensate(dense, [2, 4], rows, resumed).reports == expected.reports
        again = resumed.replaced(expected.reports)
        assert {k: f.read_bytes() for k, f in again.items()} == {
            k: f.read_bytes() for k, f in files.items()
        }
        if len(calls) == 4:
            damage(tmp_path / "resumed")
    assert [cut.layer for _, cut, *_ in calls] == [1, 3, 3, 5, 1, 3, 5]


def test_what_is_written_is_what_was_judged(
    dense: Any, stored: StoredLayers, rows: AnsweredRows, tmp_path: Path
) -> None:
    store = CheckpointStore(stored, tmp_path)
    result = compensate(dense, [2, 4], rows, store)
    in_memory = compensate(dense, [2, 4], rows)
    written = {
        parameter: value
        for file in store.replaced(result.reports).values()
        for parameter, value in stored.new_values(dense, file).items()
    }
    assert written.keys() == result.weights.keys() == in_memory.weights.keys() and written
    for parameter, value in written.items():
        assert torch.equal(value, result.weights[parameter])
        assert torch.equal(value, in_memory.weights[parameter])  # the checkpoint is float32 too


def test_too_few_samples_are_refused(dense: Any, examples: list[Inputs], tmp_path: Path) -> None:
    rows = answered_samples.saved(examples[:3], tmp_path / "rows")
    with pytest.raises(InputError, match=r"lstsq: 3 calibration samples .* too few"):
        compensate(dense, [4], rows)


def test_a_state_that_is_not_finite_is_refused(
    dense_dir: Path, rows: AnsweredRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(dense_dir, dtype="float32")
    with torch.no_grad():
        decoder_layers(model)[3].mlp.down_proj.weight[0, 0] = float("inf")
    with pytest.raises(ContractError, match=r"^compensation: the loss on answers is not finite"):
        compensate(model, [4], rows)
    monkeypatch.setattr(compensation.Repair, "loss", lambda *_: 1.0)
    with pytest.raises(ContractError, match=r"^compensation, layer 3: .* not finite"):
        compensate(model, [4], rows)
