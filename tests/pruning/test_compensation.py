"""Dropped layers are made up for as a slow solver would, and only where answers get likelier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import answered_samples
import numpy as np
import pytest
import torch
from answered_samples import logits, plan_of
from plans import PREFIX
from safetensors.torch import load_file
from torch import nn

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.layers import StoredLayers
from interlace.errors import ContractError, InputError
from interlace.model import states
from interlace.model.bypass import bypassed
from interlace.model.chat import Inputs
from interlace.model.decoder import decoder_layers
from interlace.model.open import open_model
from interlace.params.exporting import Export
from interlace.params.measuring import Answers
from interlace.plan.record import Plan
from interlace.pruning import compensation
from interlace.pruning.compensation import RIDGE, compensate, cuts_of, pruned
from interlace.pruning.dense import Dense
from interlace.pruning.export import export
from interlace.pruning.new_weights import new_weights
from interlace.samples.answered_rows import AnsweredRows


def down(layer: int) -> str:
    return f"{PREFIX}.{layer}.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def stored(dense_dir: Path) -> StoredLayers:
    return Checkpoint(dense_dir).layers


@pytest.fixture(scope="module")
def examples(dense: Any, processor: Any) -> list[Inputs]:
    """Whole conversations whose answers are what the dense model would say."""
    return answered_samples.answered_by(dense, answered_samples.encoded(processor, 24))


@pytest.fixture(scope="module")
def rows(examples: list[Inputs], tmp_path_factory: pytest.TempPathFactory) -> AnsweredRows:
    return answered_samples.saved(examples, tmp_path_factory.mktemp("rows"))


@pytest.fixture
def all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every map is taken, whatever it does to answers."""
    losses = iter(range(100, 0, -1))
    monkeypatch.setattr(compensation._Repair, "loss", lambda *_: float(next(losses)))


@pytest.mark.parametrize(
    ("drop", "runs"),
    [
        ([], []),
        ([3], [(3,)]),
        ([5, 2, 3], [(2, 3), (5,)]),
        ([0, 1, 4], [(0, 1), (4,)]),
        ([1, 3, 5], [(1,), (3,), (5,)]),
    ],
)
def test_a_run_of_dropped_layers_is_one_cut(drop: list[int], runs: list[tuple[int, ...]]) -> None:
    assert [cut.layers for cut in cuts_of(drop)] == runs
    before = [cut.folded_into for cut in cuts_of(drop)]
    assert before == [run[0] - 1 if run[0] else None for run in runs]


class _AddsMapped(nn.Module):
    """A decoder layer that adds a linear map of what the MLP of the layer before it gave."""

    def __init__(self, before: nn.Module, change: torch.Tensor) -> None:
        super().__init__()
        self.change = change
        before.mlp.down_proj.register_forward_hook(self.keep)

    def keep(self, _: nn.Module, __: Any, output: torch.Tensor) -> None:
        self.seen = output

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden_states + self.seen @ self.change


def test_a_layer_that_is_a_linear_map_is_made_up_for_exactly(
    dense_dir: Path,
    stored: StoredLayers,
    processor: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compensation, "RIDGE", 1e-12)
    model = open_model(dense_dir, dtype="float32")
    layers = decoder_layers(model)
    change = 0.3 * torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    layers[4] = _AddsMapped(layers[3], change)
    answered = answered_samples.answered_by(model, answered_samples.encoded(processor, 16))
    rows = answered_samples.saved(answered, tmp_path / "rows")
    replaced, (report,) = compensate(model, stored, [4], rows, tmp_path / "scratch")
    assert report.kept and report.residual_after < 1e-9 < report.residual_before
    expected = logits(model, answered[0])
    new = stored.new_values(model, replaced[down(3)])
    with bypassed(model, [4]):
        assert (logits(model, answered[0]) - expected).abs().max() > 0.1
    with pruned(model, [4], new):
        torch.testing.assert_close(logits(model, answered[0]), expected, atol=2e-4, rtol=1e-4)


@torch.inference_mode()
def slow_map(dense: Any, drop: list[int], run: list[int], rows: AnsweredRows, new: Any) -> Any:
    """T of the stacked problem over all valid tokens, from the states of whole passes."""
    last, kept = run[-1], [i for i in range(6) if i not in drop]
    at = kept.index(run[0] - 1)
    signals, targets = [], []
    for number in range(len(rows.groups)):
        batch = rows.batch(number, dense.device)
        valid = batch["attention_mask"].bool()
        inputs, outputs = states.residual_states(dense, batch)
        reached = inputs[last + 1] if last + 1 < 6 else outputs[last]
        given: list[torch.Tensor] = []
        with pruned(dense, drop, new):
            linear = decoder_layers(dense)[at].mlp.down_proj
            handle = linear.register_forward_hook(lambda _, __, out, to=given: to.append(out))
            inputs, outputs = states.residual_states(dense, batch)
            handle.remove()
        entering = inputs[at + 1] - outputs[at] if at + 1 < len(kept) else 0.0
        residual = outputs[at] - given[0]  # Y
        signals.append(given[0][valid].double().numpy())
        targets.append((reached - entering - residual)[valid].double().numpy())  # Z - Y
    signal, target = np.concatenate(signals), np.concatenate(targets)
    strength = np.sqrt(RIDGE * np.mean(np.sum(signal**2, 0))) * np.eye(32)
    stacked, wanted = np.concatenate([signal, strength]), np.concatenate([target, strength])
    return np.linalg.lstsq(stacked, wanted)[0]


@pytest.mark.parametrize("run", [[4], [3, 4], [5], [1], [2, 3]], ids=str)
def test_the_new_weight_is_the_old_one_behind_the_slow_map(
    dense: Any, stored: StoredLayers, rows: AnsweredRows, tmp_path: Path, run: list[int],
    all_kept: None,
) -> None:  # fmt: skip
    replaced, _ = compensate(dense, stored, run, rows, tmp_path)
    expected = slow_map(dense, run, run, rows.split(4)[0], {})
    name = down(run[0] - 1)
    old = load_file(stored.tensors[name].path)[name].double().numpy()
    found = load_file(replaced[name])[name].numpy()
    np.testing.assert_allclose(found, expected.T @ old, atol=2e-4)
    assert not np.allclose(found, old, atol=1e-2)


def test_each_run_is_fitted_on_the_model_that_the_runs_before_leave(
    dense: Any, stored: StoredLayers, rows: AnsweredRows, tmp_path: Path, all_kept: None
) -> None:
    drop, name = [2, 4], down(3)
    replaced, _ = compensate(dense, stored, drop, rows, tmp_path)
    first = stored.new_values(dense, replaced[down(1)])
    old = load_file(stored.tensors[name].path)[name].double().numpy()
    found = load_file(replaced[name])[name].numpy()
    fitted = rows.split(4)[0]
    on_compensated, on_dropped = (
        slow_map(dense, drop, [4], fitted, new).T @ old for new in (first, {})
    )
    np.testing.assert_allclose(found, on_compensated, atol=2e-4)
    assert not np.allclose(found, on_dropped, atol=1e-2)


def test_what_makes_answers_no_likelier_is_left_out(
    dense: Any, stored: StoredLayers, examples: list[Inputs], tmp_path: Path
) -> None:
    with bypassed(dense, [4]):  # any change makes the pruned model's own words less likely
        answered = answered_samples.answered_by(dense, examples)
    rows = answered_samples.saved(answered, tmp_path / "rows")
    replaced, (report,) = compensate(dense, stored, [4], rows, tmp_path / "scratch")
    assert replaced == {} and not report.kept
    assert report.heldout_after >= report.heldout_before
    assert not list((tmp_path / "scratch").glob("*.safetensors"))


def test_residuals_fall_and_a_run_that_begins_the_decoder_is_named(
    dense: Any, stored: StoredLayers, rows: AnsweredRows, examples: list[Inputs], tmp_path: Path
) -> None:
    expected = logits(dense, examples[1])
    replaced, (first, *others) = compensate(dense, stored, [0, 1, 3, 5], rows, tmp_path)
    assert torch.equal(logits(dense, examples[1]), expected)  # the model is as it was
    assert set(replaced) <= {down(2), down(4)}
    assert [report.cut for report in others] == [[3], [5]]
    for report in others:
        assert 0 <= report.residual_after < report.residual_before
        assert report.kept is (report.heldout_after < report.heldout_before)
    assert (first.cut, first.folded_into, first.kept) == ([0, 1], None, False)
    assert first.reason == "layer 0 is the first: no kept layer stands before it"


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
    drop = [2, 4]
    whole, reports = compensate(dense, stored, drop, rows, tmp_path / "whole")
    real, fits = compensation._Repair.sums, []

    def fails_at_the_second(self: Any, cut: Any, layer: int) -> Any:
        fits.append(layer)
        if len(fits) == 2:
            raise KeyboardInterrupt
        return real(self, cut, layer)

    monkeypatch.setattr(compensation._Repair, "sums", fails_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        compensate(dense, stored, drop, rows, tmp_path / "cut")
    found, again = compensate(dense, stored, drop, rows, tmp_path / "cut")
    assert fits == [1, 3, 3]
    assert again == reports
    assert found.keys() == whole.keys() and whole
    assert all(found[name].read_bytes() == whole[name].read_bytes() for name in whole)


def test_too_few_samples_are_refused(
    dense: Any, stored: StoredLayers, examples: list[Inputs], tmp_path: Path
) -> None:
    rows = answered_samples.saved(examples[:3], tmp_path / "rows")
    with pytest.raises(InputError, match=r"lstsq: 3 calibration samples .* too few"):
        compensate(dense, stored, [4], rows, tmp_path / "scratch")


def test_a_state_that_is_not_finite_is_refused(
    dense_dir: Path, stored: StoredLayers, rows: AnsweredRows, tmp_path: Path
) -> None:
    model = open_model(dense_dir, dtype="float32")
    with torch.no_grad():
        decoder_layers(model)[3].mlp.down_proj.weight[0, 0] = float("inf")
    with pytest.raises(ContractError, match=r"^compensation, layer 3: .* not finite"):
        compensate(model, stored, [4], rows, tmp_path)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answered_samples.calibration(tmp_path_factory.mktemp("samples") / "calibration")


def test_an_exported_checkpoint_has_the_compensated_weights(
    dense: Any, dense_dir: Path, examples: list[Inputs], calibration: Path, tmp_path: Path,
    all_kept: None,
) -> None:  # fmt: skip
    plan, asked = plan_of([2, 4]), Export(compensate="lstsq")
    source = Dense(Checkpoint(dense_dir), calibration, Answers(dtype="float32"))
    replaced, report = new_weights(source, plan, asked, tmp_path / "scratch")
    assert report.compensation.method == "lstsq" and report.sparsity is None
    assert [cut.folded_into for cut in report.compensation.cuts] == [1, 3]
    export(dense_dir, plan, tmp_path / "out", replaced=replaced)
    found = logits(open_model(tmp_path / "out", dtype="float32"), examples[1])
    stored = Checkpoint(dense_dir).layers
    new = {k: v for file in replaced.values() for k, v in stored.new_values(dense, file).items()}
    with pruned(dense, plan.drop, new):
        assert torch.equal(found, logits(dense, examples[1]))
    with bypassed(dense, plan.drop):
        assert not torch.equal(found, logits(dense, examples[1]))


@pytest.mark.parametrize(
    ("plan", "compensate"), [(plan_of([4]), "none"), (plan_of([], "dense-ft"), "lstsq")]
)
def test_nothing_is_done_where_nothing_is_asked(
    tmp_path: Path, plan: Plan, compensate: Any
) -> None:
    nowhere = Dense(Checkpoint(tmp_path / "no model"), tmp_path / "no rows", Answers())
    replaced, report = new_weights(nowhere, plan, Export(compensate=compensate), tmp_path)
    assert (replaced, report.as_json()) == ({}, {"compensation": None, "sparsity": None})
