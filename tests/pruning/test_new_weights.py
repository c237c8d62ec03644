"""New weights are made as a plan and the parameters ask, from as many rows as they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from answered_samples import plan_of
from plans import PREFIX

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.params.exporting import Export
from interlace.params.measuring import Answers
from interlace.plan.record import Plan
from interlace.pruning.dense import Dense
from interlace.pruning.new_weights import new_weights
from interlace.pruning.report import SparsityReport


def encoded_rows(folder: Path) -> int:
    return len(list((folder / "rows").glob("*.safetensors")))


@pytest.mark.usefixtures("every_map_kept")
def test_compensation_replaces_a_weight_of_each_kept_layer(
    dense_dir: Path, calibration: Path, tmp_path: Path
) -> None:
    source = Dense(Checkpoint(dense_dir), calibration, Answers(dtype="float32"))
    params = Export(compensate="lstsq", compensate_samples=8)
    replaced, report = new_weights(source, plan_of([2, 4]), params, tmp_path)
    assert set(replaced) == {f"{PREFIX}.{layer}.mlp.down_proj.weight" for layer in (1, 3, 5)}
    assert [cut.folded_into for cut in report.compensation.cuts] == [1, 3, 5]
    assert report.compensation.method == "lstsq" and report.sparsity is None
    assert encoded_rows(tmp_path) == 8


@pytest.mark.parametrize(("method", "rows"), [("magnitude-2:4", 0), ("wanda-2:4", 4)])
def test_a_method_of_sparsity_replaces_all_linear_layers(
    dense_dir: Path, calibration: Path, tmp_path: Path, method: str, rows: int
) -> None:
    source = Dense(Checkpoint(dense_dir), calibration, Answers(dtype="float32"))
    plan, params = plan_of([], method), Export(sparsity_samples=4)
    replaced, report = new_weights(source, plan, params, tmp_path)
    assert len(replaced) == 6 * 7 and report.compensation is None
    assert report.sparsity == SparsityReport(method=method, tensors=6 * 7)
    assert encoded_rows(tmp_path) == rows


@pytest.mark.parametrize(
    ("plan", "compensate"), [(plan_of([4]), "none"), (plan_of([], "dense-ft"), "lstsq")]
)
def test_nothing_is_done_where_nothing_is_asked(
    tmp_path: Path, plan: Plan, compensate: Any
) -> None:
    nowhere = Dense(Checkpoint(tmp_path / "no model"), tmp_path / "no rows", Answers())
    replaced, report = new_weights(nowhere, plan, Export(compensate=compensate), tmp_path)
    assert (replaced, report.as_json()) == ({}, {"compensation": None, "sparsity": None})
