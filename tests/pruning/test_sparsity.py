"""Two of every four weights are zero, chosen as a slow version chooses them, layer after layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import answered_samples
import numpy as np
import pytest
import torch
from answered_samples import logits, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import PREFIX
from safetensors.torch import load_file
from torch import nn

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.layers import StoredLayers
from interlace.errors import ContractError, InputError
from interlace.model.chat import Inputs
from interlace.model.decoder import decoder_layers, following
from interlace.model.open import open_model
from interlace.model.states import residual_states, state_before
from interlace.params.exporting import Export
from interlace.params.measuring import Answers
from interlace.pruning import sparsity
from interlace.pruning.dense import Dense
from interlace.pruning.export import export
from interlace.pruning.new_weights import new_weights
from interlace.pruning.report import SparsityReport
from interlace.pruning.sparsity import linear_layers, mask_2_4, sparsify
from interlace.samples.answered_rows import AnsweredRows


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answered_samples.calibration(tmp_path_factory.mktemp("samples") / "calibration")


def slow_mask(importance: Any) -> Any:
    mask = np.zeros(importance.shape, bool)
    for row in range(importance.shape[0]):
        for first in range(0, importance.shape[1], 4):
            columns = sorted(range(first, first + 4), key=lambda j: (-importance[row, j], j))
            mask[row, columns[:2]] = True
    return mask


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10_000), st.sampled_from([0, 1, 9]))
@settings(deadline=None)
def test_the_mask_is_the_slow_one(rows: int, groups: int, seed: int, decimals: int) -> None:
    values = np.random.default_rng(seed).random((rows, 4 * groups)).round(decimals)  # many ties
    mask = mask_2_4(torch.from_numpy(values)).numpy()
    np.testing.assert_array_equal(mask, slow_mask(values))
    assert (mask.reshape(rows, groups, 4).sum(-1) == 2).all()


@pytest.fixture(scope="module")
def stored(dense_dir: Path) -> StoredLayers:
    return Checkpoint(dense_dir).layers


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
    seen: dict[str, list[Any]] = {name: [] for name in linears}
    handles = [
        linear.register_forward_pre_hook(lambda _, args, to=seen[name]: to.append(args[0][0]))
        for name, linear in linears.items()
    ]
    for example in examples:
        logits(model, example)
    for handle in handles:
        handle.remove()
    return {
        name: np.linalg.norm(np.concatenate(x).astype(float), axis=0) for name, x in seen.items()
    }


def slow_wanda(folder: Path, examples: list[Inputs], fed_by_dense: bool = False) -> dict[str, Any]:
    model, dense = (open_model(folder, dtype="float32") for _ in range(2))
    masked = {}
    for i, layer in enumerate(decoder_layers(model)):
        linears = {name: m for name, m in layer.named_modules() if isinstance(m, nn.Linear)}
        source = decoder_layers(dense)[i] if fed_by_dense else layer
        at = {name: source.get_submodule(name) for name in linears}
        norms = slow_norms(dense if fed_by_dense else model, at, examples)
        for name, linear in linears.items():
            weight = linear.weight.detach().numpy()
            keep = slow_mask(np.abs(weight.astype(float)) * norms[name])
            linear.weight.data = torch.from_numpy(weight * keep)
            masked[f"{PREFIX}.{i}.{name}.weight"] = weight * keep
    return masked


def differing(found: dict[str, torch.Tensor], expected: dict[str, Any]) -> int:
    assert found.keys() == expected.keys()
    return sum(int((found[name].numpy() != expected[name]).sum()) for name in found)


def test_wanda_feeds_each_layer_by_sparse_ones(
    dense_dir: Path, wanda: dict[str, Path], examples: list[Inputs]
) -> None:
    found = tensors(wanda)
    assert differing(found, slow_wanda(dense_dir, examples)) == 0
    assert differing(found, slow_wanda(dense_dir, examples, fed_by_dense=True)) > 100


def test_inputs_are_those_of_a_whole_pass_to_the_bit(
    dense_dir: Path, stored: StoredLayers, wanda: dict[str, Path], rows: AnsweredRows
) -> None:
    model = open_model(dense_dir, dtype="float32")
    batch = rows.batch(0, model.device)
    for number in range(5):
        for weight, value in stored.new_values(
            model, wanda[f"{PREFIX}.{number}.mlp.down_proj.weight"]
        ).items():
            weight.data = value
        with torch.inference_mode():
            inputs, _ = residual_states(model, batch)
            found = state_before(model, batch, following(model, number))
        assert torch.equal(found, inputs[number + 1])


def test_magnitude_keeps_the_largest_and_reads_no_rows(
    dense_dir: Path, stored: StoredLayers, tmp_path: Path
) -> None:
    source = Dense(Checkpoint(dense_dir), tmp_path / "no rows", Answers())
    replaced, report = new_weights(source, plan_of([], "magnitude-2:4"), Export(), tmp_path / "new")
    assert report.sparsity == SparsityReport(method="magnitude-2:4", tensors=6 * 7)
    for name, value in tensors(replaced).items():
        dense = load_file(stored.tensors[name].path)[name].numpy()
        np.testing.assert_array_equal(value, dense * slow_mask(np.abs(dense)))


def test_an_exported_checkpoint_is_half_zero_in_the_decoder_s_linear_layers(
    dense_dir: Path,
    examples: list[Inputs],
    calibration: Path,
    tmp_path: Path,
) -> None:
    plan = plan_of([], "wanda-2:4")
    source = Dense(Checkpoint(dense_dir), calibration, Answers(dtype="float32"))
    replaced, report = new_weights(source, plan, Export(sparsity_samples=4), tmp_path / "new")
    assert report.compensation is None
    export(dense_dir, plan, tmp_path / "out", replaced=replaced)
    model, dense = (open_model(f, dtype="float32") for f in (tmp_path / "out", dense_dir))
    linears = [f"{i}.{n}" for i, x in enumerate(decoder_layers(model)) for n in linear_layers(x, i)]
    masked = {f"{PREFIX}.{name}.weight" for name in linears}
    for (name, weight), old in zip(model.named_parameters(), dense.parameters(), strict=True):
        if name in masked:
            assert (weight.reshape(-1, 4) == 0).sum(-1).eq(2).all()
            assert torch.equal(weight, old * (weight != 0))
        else:
            assert torch.equal(weight, old)
    assert masked <= {name for name, _ in model.named_parameters()}
    stored = Checkpoint(dense_dir).layers
    for file in set(replaced.values()):
        for weight, value in stored.new_values(dense, file).items():
            weight.data = value
    assert torch.equal(logits(model, examples[1]), logits(dense, examples[1]))


def test_an_interrupted_run_comes_to_the_same_bytes(
    dense_dir: Path,
    stored: StoredLayers,
    rows: AnsweredRows,
    wanda: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, measured = sparsity.input_norms, []

    def fails_at_layer_3(model: Any, number: int, *rest: Any) -> Any:
        measured.append(number)
        if measured == [0, 1, 2, 3]:
            raise KeyboardInterrupt
        return real(model, number, *rest)

    monkeypatch.setattr(sparsity, "input_norms", fails_at_layer_3)
    for attempt in range(2):
        model = open_model(dense_dir, dtype="float32")
        if attempt == 0:
            with pytest.raises(KeyboardInterrupt):
                sparsify(model, stored, rows, tmp_path)
        else:
            found = sparsify(model, stored, rows, tmp_path)
    assert measured == [0, 1, 2, 3, 3, 4, 5]
    assert all(found[name].read_bytes() == wanda[name].read_bytes() for name in wanda)


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
