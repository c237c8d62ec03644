"""The attention and the devices with which a checkpoint is opened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from interlace.errors import InputError
from interlace.model.open import input_device, open_model


@pytest.mark.parametrize("requested", ["eager", "sdpa"])
def test_a_model_is_opened_with_the_requested_attention(dense_dir: Path, requested: str) -> None:
    model = open_model(dense_dir, dtype="float32", attn_implementation=requested)
    assert model.config._attn_implementation == requested


def test_a_spread_model_holds_the_same_weights(dense: Any, dense_dir: Path) -> None:
    model = open_model(dense_dir, dtype="float32", device_map="auto")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, dense.state_dict()[name])
    assert input_device(model).type != "meta"


def test_damaged_weights_are_named_by_their_folder(dense_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dense_dir, tmp_path / "model"))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-8])
    with pytest.raises(InputError, match=r"/model: a file of weights is damaged: .* copy them"):
        open_model(folder, dtype="float32")


def test_a_damaged_configuration_is_named_by_its_folder(dense_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(dense_dir, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["vision_config"]["deepstack_visual_indexes"] = {}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match=r"/model: .*'deepstack_visual_indexes'.*copy it again"):
        open_model(folder, dtype="float32")


def test_several_processes_cannot_each_spread_a_model(
    dense_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"device_map = auto: each of 2 processes .* python -m"):
        open_model(dense_dir, device_map="auto")
