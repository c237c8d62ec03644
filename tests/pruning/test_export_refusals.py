"""What `export` refuses, in one line and with nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from plans import PLAN, PREFIX, make_plan
from safetensors.torch import load_file, save_file
from sources_json import pinned_model

from interlace.errors import ContractError, InputError
from interlace.model.files import SINGLE
from interlace.pruning import export as exporting
from interlace.pruning.export import check_made_for, export_checkpoint
from interlace.sources.pinned import PinnedFile


def lose_a_weight(folder: Path) -> None:
    tensors = load_file(folder / SINGLE)
    del tensors[f"{PREFIX}.2.mlp.down_proj.weight"]
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def quantise(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "n_layers", "said"),
    [
        (lambda folder: None, 8, r"dense has 6 decoder layers, the plan is for 8"),
        (lose_a_weight, 6, r"the weights lack .*layers\.2\.mlp\.down_proj\.weight, and hold"),
        (quantise, 6, "quantised weights are not supported"),
    ],
)
def test_a_model_that_cannot_be_pruned_is_refused(
    copied: Path, tmp_path: Path, change: Callable[[Path], None], n_layers: int, said: str
) -> None:
    change(copied)
    with pytest.raises(InputError, match=said):
        export_checkpoint(copied, make_plan([3, 5], [], n_layers), tmp_path / "pruned")
    assert [path.name for path in tmp_path.iterdir()] == ["dense"]


def test_a_disk_without_room_is_refused_before_anything_is_written(
    dense_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 2**10))
    monkeypatch.setattr(exporting, "write_tensors", None)
    with pytest.raises(InputError, match=r"deep/pruned: takes \d+ MiB, and 0 MiB of the disk"):
        export_checkpoint(dense_dir, PLAN, tmp_path / "deep/pruned")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        (f"{PREFIX}.4.mlp.down_proj.weight", (2, 2), r"down_proj\.weight is F32 \[2, 2\], and the"),
        (f"{PREFIX}.3.mlp.down_proj.weight", (32, 48), "to be replaced, and its layer is dropped"),
        ("surprise", (1,), "the model holds no tensor surprise, which is to be replaced"),
    ],
)
def test_replaced_values_that_do_not_fit_are_refused(
    dense_dir: Path, tmp_path: Path, name: str, shape: tuple[int, ...], said: str
) -> None:
    file = tmp_path / "new.safetensors"
    save_file({name: torch.zeros(shape)}, file)
    with pytest.raises(ContractError, match=said):
        export_checkpoint(dense_dir, PLAN, tmp_path / "pruned", replaced={name: file})
    assert list(tmp_path.iterdir()) == [file]


FILES, OTHER_FILES = ({"a": PinnedFile(size=1, sha256=sha)} for sha in "xy")


@pytest.mark.parametrize(
    ("pinned", "change", "said"),
    [
        ({"revision": "abc"}, {"id": "org/other"}, "model org/name, .* org/other with org/other"),
        ({"revision": "abc"}, {"revision": "def"}, "revision or files abc, .* org/name with def"),
        ({"revision": "abc"}, {"n_layers": 8}, "number of layers 6, .* org/name with 8"),
        ({"files": FILES}, {"files": OTHER_FILES}, "revision or files"),
    ],
)
def test_a_plan_for_another_model_is_refused(
    pinned: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    model = pinned_model("org/name", **{"files": None} | pinned)
    plan = PLAN.model_copy(update={"sources": model.identity()})
    check_made_for(plan, model)
    check_made_for(PLAN, model)  # a plan that does not say
    with pytest.raises(InputError, match=f"made for {said}.*; select again") as caught:
        check_made_for(plan, model.model_copy(update=change))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_checkpoint_is_not_written_over(
    dense_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years")
    with pytest.raises(InputError, match=r"mine: exists and is no checkpoint"):
        export_checkpoint(dense_dir, PLAN, tmp_path / "mine")
    with pytest.raises(InputError, match="the output is the model itself"):
        export_checkpoint(dense_dir, PLAN, dense_dir)
    assert (tmp_path / "mine/thesis.txt").read_text() == "years"
