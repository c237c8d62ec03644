"""How a checkpoint is opened: where it lies, and with which attention."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from interlace.errors import InputError
from interlace.healing.finetune import flash_attention
from interlace.model.open import attention, input_device, open_model
from interlace.params.healing import Recipe


@pytest.fixture
def flash_attn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package flash-attn were installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: found("torch" if name == "flash_attn" else name)
    )


@pytest.mark.usefixtures("flash_attn")
@pytest.mark.parametrize(
    ("dtype", "on_gpu", "expected"),
    [
        ("bfloat16", True, "flash_attention_2"),
        ("float16", True, "flash_attention_2"),
        ("float32", True, None),
        ("bfloat16", False, None),
    ],
)
def test_flash_attention_is_taken_where_it_works(
    dtype: str, on_gpu: bool, expected: str | None
) -> None:
    assert attention("auto", dtype, on_gpu=on_gpu) == expected


def test_without_the_package_the_model_chooses() -> None:
    assert attention("auto", "bfloat16", on_gpu=True) is None


@pytest.mark.parametrize("asked", [None, "sdpa", "eager"])
def test_what_is_asked_for_is_taken(asked: str | None) -> None:
    assert attention(asked, "float32", on_gpu=False) == asked


@pytest.mark.usefixtures("flash_attn")
@pytest.mark.parametrize(("dtype", "flash"), [("float32", False), ("bfloat16", True)])
def test_training_takes_flash_attention_where_it_works(
    dtype: Literal["float32", "bfloat16"], flash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert flash_attention(Recipe(dtype=dtype)) is flash


def test_flash_attention_that_cannot_be_had_is_refused(dense_dir: Path) -> None:
    with pytest.raises(InputError, match=r"attn_implementation = flash_attention_2 .* to auto"):
        open_model(dense_dir, dtype="float32", attn_implementation="flash_attention_2")


@pytest.mark.parametrize("asked", ["eager", "sdpa"])
def test_a_model_is_opened_with_the_attention_asked_for(dense_dir: Path, asked: str) -> None:
    model = open_model(dense_dir, dtype="float32", attn_implementation=asked)
    assert model.config._attn_implementation == asked


def test_a_spread_model_holds_the_same_weights(dense: Any, dense_dir: Path) -> None:
    model = open_model(dense_dir, dtype="float32", device_map="auto")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, dense.state_dict()[name])
    assert input_device(model).type != "meta"


def test_several_processes_cannot_each_spread_a_model(
    dense_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"device_map = auto: each of 2 processes .* python -m"):
        open_model(dense_dir, device_map="auto")
