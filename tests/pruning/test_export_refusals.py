"""What `export` refuses, in one line and with nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from plans import PLAN, PREFIX, make_plan, printed
from safetensors.torch import load_file, save_file
from sources_json import pinned_model

import interlace
from interlace.errors import ContractError, InputError
from interlace.pruning import export as checkpoint
from interlace.pruning.export import check_made_for
from interlace.sources.pinned import PinnedFile


def test_a_plan_for_another_layer_count_is_refused(dense_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 6 decoder layers, the plan is for 8"):
        interlace.export(dense_dir, make_plan([3], [4], n_layers=8), tmp_path / "pruned")
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_lacks_a_weight_is_refused(dense_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(dense_dir, tmp_path / "dense")
    tensors = load_file(tmp_path / "dense/model.safetensors")
    del tensors[f"{PREFIX}.2.mlp.down_proj.weight"]
    save_file(tensors, tmp_path / "dense/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"the weights lack .*layers\.2\.mlp\.down_proj\.weight, and hold"
    ):
        interlace.export(tmp_path / "dense", PLAN, tmp_path / "pruned")


def test_a_limit_on_the_size_of_files_ends_in_one_line(dense_dir: Path, tmp_path: Path) -> None:
    code = f"""
import resource
import interlace
from interlace.errors import InputError
from interlace.plan.record import read_plan
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    interlace.export({str(dense_dir)!r}, read_plan(Path("plan.json")), "pruned")
except InputError as error:
    print(error)
"""
    (tmp_path / "plan.json").write_text(PLAN.model_dump_json())
    assert printed(code, tmp_path) == (
        "pruned: could not be written: File too large; free disk space and run it again\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_a_disk_without_room_is_refused_before_anything_is_written(
    dense_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 2**10))
    monkeypatch.setattr(checkpoint, "write_tensors", None)
    with pytest.raises(InputError, match=r"deep/pruned: takes \d+ MiB, and 0 MiB of the disk"):
        interlace.export(dense_dir, PLAN, tmp_path / "deep/pruned")
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
    save_file({name: torch.zeros(shape)}, tmp_path / "new.safetensors")
    with pytest.raises(ContractError, match=said):
        interlace.export(
            dense_dir, PLAN, tmp_path / "pruned", replaced={name: tmp_path / "new.safetensors"}
        )
    assert [path.name for path in tmp_path.iterdir()] == ["new.safetensors"]


PINNED = pinned_model("org/name", files=None, revision="abc")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "org/other"}, "for model org/name, but the model is org/other with org/other; run"),
        ({"revision": "def"}, "for revision or files abc, but the model is org/name with def; run"),
        ({"n_layers": 8}, "for number of layers 6, but the model is org/name with 8; run"),
    ],
)
def test_a_plan_for_another_model_is_refused(change: dict[str, Any], said: str) -> None:
    plan = PLAN.model_copy(update={"sources": {"model": "org/name", "revision": "abc"}})
    check_made_for(plan, PINNED)
    check_made_for(PLAN, PINNED)  # a plan that does not say
    with pytest.raises(InputError, match=said) as caught:
        check_made_for(plan, PINNED.model_copy(update=change))
    assert "\n" not in str(caught.value)


def test_a_plan_for_other_files_of_a_local_model_is_refused() -> None:
    local = pinned_model(files={"a": PinnedFile(size=1, sha256="x")})
    other = pinned_model(files={"a": PinnedFile(size=1, sha256="y")})
    plan = PLAN.model_copy(update={"sources": local.identity()})
    check_made_for(plan, local)
    with pytest.raises(InputError, match="made for revision or files"):
        check_made_for(plan, other)


def test_quantised_weights_are_refused(dense_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(dense_dir, tmp_path / "dense")
    config = json.loads((tmp_path / "dense/config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (tmp_path / "dense/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="quantised weights are not supported"):
        interlace.export(tmp_path / "dense", PLAN, tmp_path / "pruned")


def test_a_folder_that_is_no_checkpoint_is_not_written_over(
    dense_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years")
    with pytest.raises(InputError, match=r"mine: exists and is no checkpoint"):
        interlace.export(dense_dir, PLAN, tmp_path / "mine")
    with pytest.raises(InputError, match="the output is the model itself"):
        interlace.export(dense_dir, PLAN, dense_dir)
    assert (tmp_path / "mine/thesis.txt").read_text() == "years"
