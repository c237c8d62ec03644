"""A tiny random model of every family, and an input for each, with an image where it takes some.

Configurations are JSON as checkpoints on the hub have it: per-layer lists are left to defaults and
patterns where models do so. Decoders are 32 wide, pictures 16 pixels.
"""

from __future__ import annotations

import copy
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from family_decoders import DECODERS, Config
from family_grids import GRIDS, NEWER_GRIDS
from family_parts import IMAGE, Tiny
from family_squares import NEWER_SQUARES, SQUARES

from interlace.model.chat import IGNORED, PER_TOKEN, TYPES, Inputs

WITH_IMAGES = GRIDS | SQUARES
TEXT = {name: Tiny(config, {}, 0) for name, config in DECODERS.items()}
TINY = WITH_IMAGES | TEXT  # in the tests of all parts
NEWER = NEWER_GRIDS | NEWER_SQUARES  # along the small path, and with their processors
ALL = TINY | NEWER
OLDER_NAMES = {"fuyu": "image_patches", "video_llava": "pixel_values_images"}  # until 5.20


def before(*version: int) -> bool:
    """Return True if the installed transformers is older than a version."""
    return tuple(int(part) for part in transformers.__version__.split(".")[:2]) < version


UNCAPPED = pytest.mark.skipif(
    before(5, 23), reason="transformers before 5.23 does not cap the logits of PaliGemma 2"
)
WITH_LOGITS = [  # whose logits are those that the decoder defines
    pytest.param(name, marks=UNCAPPED) if name == "paligemma, gemma2" else name for name in TINY
]


def is_known(name: str) -> bool:
    """Return True if the installed transformers has the family of a tiny model."""
    from transformers import CONFIG_MAPPING

    return ALL[name].config["model_type"] in CONFIG_MAPPING


def save(name: str, folder: Path) -> Path:
    """Save the tiny model of a name."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in _files(name).items():
        (folder / file).write_bytes(content)
    return folder


@functools.cache
def _files(name: str) -> dict[str, bytes]:
    """Build the tiny model of a name, once in a process; return its files, of some 100 KB."""
    with tempfile.TemporaryDirectory() as folder:
        save_config(ALL[name].config, Path(folder))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def save_config(json_config: Config, folder: Path) -> Path:
    """Save a model with random weights."""
    build(json_config).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(json_config))
    return folder


def build(json_config: Config) -> Any:
    """Build a model with random weights, of which each matters to what it computes."""
    from transformers import (
        CONFIG_MAPPING,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    config = CONFIG_MAPPING[json_config["model_type"]].from_dict(copy.deepcopy(json_config))
    text = json_config["model_type"] in TEXT
    with torch.random.fork_rng(devices=[]):  # A_log is drawn, and only added to below
        torch.manual_seed(0)
        model = (AutoModelForCausalLM if text else AutoModelForImageTextToText).from_config(config)
    random = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if not tensor.is_floating_point():
            continue
        weights = torch.randn(tensor.shape, generator=random)
        if tensor.ndim > 1:
            tensor.copy_(weights / tensor.shape[-1] ** 0.5)
        else:
            tensor.add_(0.2 * weights)
    return model


def inputs(name: str) -> Inputs:
    """A prompt of text around one picture if the family takes some, one row."""
    tiny = ALL[name]
    picture = [92, *[IMAGE] * tiny.image_tokens, 93]
    ids = torch.tensor([[5, 6, 7, *picture, 8, 9, 10, 11, 12, 13]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | tiny.pixels
    if name in OLDER_NAMES and before(5, 21):
        batch[OLDER_NAMES[name]] = batch.pop("pixel_values")
    batch |= {name: (ids == IMAGE).int() for name in tiny.types}
    return batch


def samples(name: str) -> tuple[Inputs, Inputs]:
    """A sample with the family's picture, and one of text alone, both with answers."""
    picture = {k: v[0] if k in PER_TOKEN else v for k, v in inputs(name).items()}
    labels = torch.full_like(picture["input_ids"], IGNORED)
    labels[-5:] = picture["input_ids"][-5:]
    text_only = {k: v[-4:].clone() for k, v in picture.items() if k in PER_TOKEN}
    for kinds in TYPES & text_only.keys():
        text_only[kinds].zero_()
    return picture | {"labels": labels}, text_only | {"labels": text_only["input_ids"].clone()}
