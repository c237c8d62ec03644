"""Dropped layers are made up for as a slow solver would, and only where answers get likelier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import answered_samples
import numpy as np
import pytest
import torch
from answered_samples import logits
from interruptions import damage, interrupt
from plans import PREFIX
from safetensors.torch import load_file

from interlace.checkpoint.layers import StoredLayers
from interlace.errors import ContractError, InputError
from interlace.model import states
from interlace.model.bypass import bypassed
from interlace.model.chat import Inputs
from interlace.model.decoder import decoder_layers
from interlace.model.open import open_model
from interlace.pruning import compensation
from interlace.pruning.compensation import HELD_OUT, RIDGE, compensate, cuts_of, pruned
from interlace.pruning.report import CutReport
from interlace.samples.answered_rows import AnsweredRows


def down(layer: int) -> str:
    return f"{PREFIX}.{layer}.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def examples(dense: Any, processor: Any) -> list[Inputs]:
    """Whole conversations whose answers are what the dense model would say."""
    return answered_samples.answered_by(dense, answered_samples.encoded(processor, 24))


@pytest.fixture(scope="module")
def rows(examples: list[Inputs], tmp_path_factory: pytest.TempPathFactory) -> AnsweredRows:
    return answered_samples.saved(examples, tmp_path_factory.mktemp("rows"))


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


@torch.inference_mode()
def slow_map(dense: Any, drop: list[int], run: list[int], rows: AnsweredRows, new: Any) -> Any:
    """T of the stacked problem over all valid tokens, from the states of whole passes."""
    kept = [layer for layer in range(6) if layer not in drop]
    position = kept.index(run[0] - 1)
    mlp_outputs: dict[None, torch.Tensor] = {}
    signals, targets = [], []
    for number in range(len(rows.groups)):
        batch = rows.batch(number, dense.device)
        valid = batch["attention_mask"].bool()
        inputs, outputs = states.residual_states(dense, batch)
        target = [*inputs, outputs[-1]][run[-1] + 1]
        with pruned(dense, drop, new):
            linear = decoder_layers(dense)[position].mlp.down_proj
            with states.hooked({None: linear}, on_return=mlp_outputs.__setitem__):
                inputs, outputs = states.residual_states(dense, batch)
        signal = mlp_outputs[None]
        state = [*inputs, outputs[-1]][position + 1]  # M + Y, visual features that enter included
        signals.append(signal[valid].double().numpy())
        targets.append((target - (state - signal))[valid].double().numpy())  # Z - Y
    signal, target = np.concatenate(signals), np.concatenate(targets)
    strength = np.sqrt(RIDGE * np.mean(np.sum(signal**2, 0))) * np.eye(32)
    stacked, stacked_target = np.concatenate([signal, strength]), np.concatenate([target, strength])
    return np.linalg.lstsq(stacked, stacked_target)[0]


@pytest.mark.parametrize(
    ("drop", "run"),
    [([4], [4]), ([3, 4], [3, 4]), ([5], [5]), ([1], [1]), ([2, 3], [2, 3]), ([2, 4], [4])],
    ids=str,
)
@pytest.mark.usefixtures("every_map_kept")
def test_the_new_weight_is_the_old_one_and_the_slow_map_on_the_model_so_far(
    dense: Any,
    stored: StoredLayers,
    rows: AnsweredRows,
    tmp_path: Path,
    drop: list[int],
    run: list[int],
) -> None:
    replaced, _ = compensate(dense, stored, drop, rows, tmp_path)
    name = down(run[0] - 1)
    new = load_file(replaced.pop(name))[name].numpy()
    old = load_file(stored.tensors[name].path)[name].double().numpy()
    earlier = {k: v for f in replaced.values() for k, v in stored.new_values(dense, f).items()}
    fitted = rows.split(HELD_OUT)[0]
    expected = slow_map(dense, drop, run, fitted, earlier).T @ old
    np.testing.assert_allclose(new, expected, atol=2e-4)
    assert not np.allclose(new, old, atol=1e-2)
    if earlier:  # a fit on the model without the earlier run's map would be another
        on_dropped = slow_map(dense, drop, run, fitted, {}).T @ old
        assert not np.allclose(new, on_dropped, atol=1e-2)


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


def test_the_next_run_is_judged_by_the_loss_of_the_model_so_far() -> None:
    kept, refused = (
        CutReport(cut=[2], folded_into=1, heldout_before=3.0, heldout_after=loss, kept=loss < 3)
        for loss in (2.0, 4.0)
    )
    losses = [compensation._loss_so_far(reports) for reports in ([], [kept], [refused])]
    assert losses == [None, 2.0, 3.0]


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
    expected, reports = compensate(dense, stored, [2, 4], rows, tmp_path / "whole")
    calls = interrupt(monkeypatch, compensation._Repair, call=2, name="sums")
    with pytest.raises(KeyboardInterrupt):
        compensate(dense, stored, [2, 4], rows, tmp_path / "resumed")
    replaced, reports_again = compensate(dense, stored, [2, 4], rows, tmp_path / "resumed")
    assert [layer for _, _, layer in calls] == [1, 3, 3]
    assert reports_again == reports
    assert replaced.keys() == expected.keys() and expected
    assert all(replaced[name].read_bytes() == expected[name].read_bytes() for name in expected)
    damage(tmp_path / "resumed")
    replaced, reports_again = compensate(dense, stored, [2, 4], rows, tmp_path / "resumed")
    assert reports_again == reports
    assert all(replaced[name].read_bytes() == expected[name].read_bytes() for name in expected)


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
