"""Two of every four weights are zero, chosen as a slow version chooses them, layer after layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import answered_samples
import numpy as np
import pytest
import torch
from answered_samples import logits
from hypothesis import given
from hypothesis import strategies as st
from interruptions import damage, interrupt
from plans import PREFIX
from safetensors.torch import load_file
from torch import nn

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.layers import StoredLayers
from interlace.errors import ContractError, InputError
from interlace.model.chat import Inputs
from interlace.model.decoder import decoder_layers
from interlace.model.open import open_model
from interlace.model.states import hooked
from interlace.pruning import sparsity
from interlace.pruning.sparsity import linear_layers, mask_2_4, sparsify
from interlace.samples.answered_rows import AnsweredRows


def slow_mask(importance: Any) -> Any:
    mask = np.zeros(importance.shape, bool)
    for row in range(importance.shape[0]):
        for first in range(0, importance.shape[1], 4):
            columns = sorted(range(first, first + 4), key=lambda j: (-importance[row, j], j))
            mask[row, columns[:2]] = True
    return mask


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10_000), st.sampled_from([0, 1, 9]))
def test_the_mask_is_the_slow_one(rows: int, groups: int, seed: int, decimals: int) -> None:
    values = np.random.default_rng(seed).random((rows, 4 * groups)).round(decimals)  # many ties
    mask = mask_2_4(torch.from_numpy(values)).numpy()
    np.testing.assert_array_equal(mask, slow_mask(values))
    assert (mask.reshape(rows, groups, 4).sum(-1) == 2).all()


@pytest.fixture(scope="module")
def examples(processor: Any) -> list[Inputs]:
    return answered_samples.encoded(processor, 8)


@pytest.fixture(scope="module")
def rows(examples: list[Inputs], tmp_path_factory: pytest.TempPathFactory) -> AnsweredRows:
    return answered_samples.saved(examples, tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def wanda(
    dense_dir: Path, stored: StoredLayers, rows: AnsweredRows, tmp_path_factory: Any
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wanda")
    return sparsify(open_model(dense_dir, dtype="float32"), stored, rows, folder)


def tensors(replaced: dict[str, Path]) -> dict[str, torch.Tensor]:
    return {name: load_file(file)[name] for name, file in replaced.items()}


@torch.inference_mode()
def slow_norms(model: Any, linears: dict[str, nn.Linear], examples: list[Inputs]) -> Any:
    """`||X_j||` by linear layer from whole passes of single rows, which have no padding."""
    inputs: dict[str, list[Any]] = {name: [] for name in linears}
    with hooked(linears, on_call=lambda name, args, _: inputs[name].append(args[0][0])):
        for example in examples:
            logits(model, example)
    return {
        name: np.linalg.norm(np.concatenate(x).astype(float), axis=0) for name, x in inputs.items()
    }


def slow_wanda(folder: Path, examples: list[Inputs], fed_by_dense: bool = False) -> dict[str, Any]:
    model, dense = (open_model(folder, dtype="float32") for _ in range(2))
    fed = dense if fed_by_dense else model
    masked = {}
    for number, layer in enumerate(decoder_layers(model)):
        norms = slow_norms(fed, linear_layers(decoder_layers(fed)[number], number), examples)
        for name, linear in linear_layers(layer, number).items():
            weight = linear.weight.detach().numpy()
            mask = slow_mask(np.abs(weight.astype(float)) * norms[name])
            linear.weight.data = torch.from_numpy(weight * mask)
            masked[f"{PREFIX}.{number}.{name}.weight"] = weight * mask
    return masked


def differing(sparse: dict[str, torch.Tensor], expected: dict[str, Any]) -> int:
    assert sparse.keys() == expected.keys() and len(sparse) == 6 * 7
    return sum(int((sparse[name].numpy() != expected[name]).sum()) for name in sparse)


def test_wanda_feeds_each_layer_by_sparse_ones(
    dense_dir: Path, wanda: dict[str, Path], examples: list[Inputs]
) -> None:
    sparse = tensors(wanda)
    assert differing(sparse, slow_wanda(dense_dir, examples)) == 0
    assert differing(sparse, slow_wanda(dense_dir, examples, fed_by_dense=True)) > 100


def test_magnitude_keeps_the_largest_weights(
    dense_dir: Path, stored: StoredLayers, tmp_path: Path
) -> None:
    skeleton = Checkpoint(dense_dir).without_weights()
    for name, value in tensors(sparsify(skeleton, stored, None, tmp_path)).items():
        dense = load_file(stored.tensors[name].path)[name].numpy()
        np.testing.assert_array_equal(value, dense * slow_mask(np.abs(dense)))


def test_an_interrupted_run_comes_to_the_same_bytes(
    dense_dir: Path,
    stored: StoredLayers,
    rows: AnsweredRows,
    wanda: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = interrupt(monkeypatch, sparsity, call=4, name="input_norms")
    with pytest.raises(KeyboardInterrupt):
        sparsify(open_model(dense_dir, dtype="float32"), stored, rows, tmp_path)
    resumed = sparsify(open_model(dense_dir, dtype="float32"), stored, rows, tmp_path)
    assert [number for _, number, *_ in calls] == [0, 1, 2, 3, 3, 4, 5]
    assert all(resumed[name].read_bytes() == wanda[name].read_bytes() for name in wanda)
    expected = {name: wanda[name].read_bytes() for name in wanda}
    damage(tmp_path)
    again = sparsify(open_model(dense_dir, dtype="float32"), stored, rows, tmp_path)
    assert {name: again[name].read_bytes() for name in again} == expected


def test_an_input_that_is_not_finite_is_refused(
    dense_dir: Path, stored: StoredLayers, rows: AnsweredRows, tmp_path: Path
) -> None:
    model = open_model(dense_dir, dtype="float32")
    with torch.no_grad():
        decoder_layers(model)[1].self_attn.v_proj.weight[0, 0] = float("inf")
    with pytest.raises(ContractError, match=r"o_proj of layer 1 is not finite"):
        sparsify(model, stored, rows, tmp_path)


def test_rows_that_do_not_split_into_fours_are_refused() -> None:
    layer = nn.Sequential(nn.Linear(8, 3), nn.Linear(6, 2))
    with pytest.raises(InputError, match=r"1 of layer 7 has 6 input columns, not a multiple of 4"):
        linear_layers(layer, 7)
