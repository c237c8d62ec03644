"""New weights are made as a plan and the parameters ask, from as many rows as they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from answered_samples import plan_of
from plans import PREFIX, weights
from safetensors.torch import save_file

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.params.exporting import Export
from interlace.params.measuring import Answers
from interlace.plan.record import Plan
from interlace.pruning.dense import Dense
from interlace.pruning.export import export_checkpoint
from interlace.pruning.new_weights import new_weights
from interlace.pruning.parity import check_parity
from interlace.pruning.report import HealedReport, SparsityReport


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
    nothing = {"healed": None, "compensation": None, "sparsity": None}
    assert (replaced, report.as_json()) == ({}, nothing)


@pytest.fixture
def healed(dense_dir: Path, tmp_path: Path) -> Path:
    """Other weights of layers 2 and 3, by stored name."""
    names = [
        name for name in weights(dense_dir) if name.startswith((f"{PREFIX}.2.", f"{PREFIX}.3."))
    ]
    file = tmp_path / "healed.safetensors"
    save_file({name: 1.25 * weights(dense_dir)[name] for name in names}, file)
    return file


@pytest.mark.usefixtures("every_map_kept")
@pytest.mark.parametrize("compensate", ["none", "lstsq"])
def test_healed_layers_are_exported_and_reported(
    dense_dir: Path, calibration: Path, tmp_path: Path, healed: Path, compensate: Any
) -> None:
    source = Dense(Checkpoint(dense_dir), calibration, Answers(dtype="float32"))
    plan = plan_of([4]).model_copy(update={"rounds": 3, "heal_steps": 20})
    params = Export(compensate=compensate)
    replaced, report = new_weights(source, plan, params, tmp_path / "scratch", healed)
    assert report.healed == HealedReport(rounds=2, steps=20, layers=[2, 3])
    out = tmp_path / "pruned"
    export_checkpoint(
        *(dense_dir, plan, out),
        replaced=replaced,
        check=lambda written: check_parity(written, source, plan, params, replaced),
    )
    written, new = weights(out), weights(healed.parent)
    fitted = {f"{PREFIX}.{layer}.mlp.down_proj.weight" for layer in (2, 3)}
    for name, value in new.items():
        assert torch.equal(written[name], value) == (compensate == "none" or name not in fitted)
    untouched = f"{PREFIX}.1.mlp.down_proj.weight"
    assert torch.equal(written[untouched], weights(dense_dir)[untouched])


def test_a_plan_of_healed_layers_is_not_exported_without_them(
    dense_dir: Path, tmp_path: Path
) -> None:
    plan = plan_of([4]).model_copy(update={"rounds": 2, "heal_steps": 20})
    with pytest.raises(InputError, match=r"healed between 2 rounds, and no healed weights"):
        export_checkpoint(dense_dir, plan, tmp_path / "pruned")
