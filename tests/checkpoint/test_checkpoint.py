"""Weights that are not all there are refused in one line, by their files' headers alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import models
import pytest

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.model.bypass import bypass
from interlace.model.files import INDEX, SINGLE

SHARD = "model-00001-of-00002.safetensors"


def index(text: str) -> Callable[[Path], object]:
    """Turn the only weight file into a shard, and write an index beside it."""

    def change(folder: Path) -> None:
        (folder / SINGLE).rename(folder / SHARD)
        (folder / INDEX).write_text(text)

    return change


UNREADABLE = (
    "{}",
    json.dumps({"weight_map": {"t": SHARD}}),  # transformers reads `metadata`
    *(json.dumps({"metadata": {}} | part) for part in (
        {}, {"weight_map": 3}, {"weight_map": {}}, {"weight_map": {"t": None}},
        {"weight_map": {"t": [SHARD]}}, {"weight_map": {"t": "weights.bin"}},
    )),
)  # fmt: skip


def weight_map(**files: str) -> str:
    return json.dumps({"metadata": {}, "weight_map": files})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: (folder / SINGLE).unlink(), r"no \.safetensors weights"),
        (
            lambda folder: (folder / SINGLE).rename(folder / "pytorch_model.bin"),
            r"pytorch_model\.bin is pickled.*save_pretrained writes",
        ),
        (
            lambda folder: (folder / SINGLE).rename(folder / SHARD),
            f"{SHARD} is there, but neither .* copy the missing file",
        ),
        (
            index(weight_map(t=SHARD, u="two.safetensors")),
            r"names two\.safetensors: .*: no such file",
        ),
        (index(weight_map(t=SHARD, u=SHARD)), "names 1 tensors that are not where it says: u is"),
        *((index(text), "not a readable index") for text in UNREADABLE),
        *((index(text), "index.json: not ") for text in ("{", "[]", "null", '{"a":' * 100_000)),
    ],
)
def test_incomplete_weights_are_refused_in_one_line(
    tmp_path: Path, change: Callable[[Path], object], reason: str
) -> None:
    (tmp_path / SINGLE).write_bytes(models.weights_file())
    assert set(Checkpoint(tmp_path).tensors) == {"t"}
    change(tmp_path)
    with pytest.raises(InputError, match=reason) as caught:
        _ = Checkpoint(tmp_path).tensors
    assert "\n" not in str(caught.value)


def test_counts_are_those_of_the_opened_model(dense_dir: Path) -> None:
    checkpoint = Checkpoint(dense_dir)
    model = checkpoint.open_model(dtype="float32")
    assert checkpoint.parameters == model.num_parameters()
    layers = checkpoint.layers.parameters()
    assert list(layers) == list(range(checkpoint.architecture.n_layers))
    bypass(model, [1, 4])
    assert checkpoint.parameters - layers[1] - layers[4] == model.num_parameters()
