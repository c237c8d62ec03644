"""Cosines of spans and sums of states, against the same numbers computed slowly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import models
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interlace.measurements import cosines as cosines_module
from interlace.measurements.cosines import NotFinite, last_tokens, measure_batch, token_sums
from interlace.model.chat import Inputs, collate, encode_prompt
from interlace.model.open import open_model, open_processor
from interlace.model.states import residual_states
from interlace.params.measuring import Collect

LAYERS = 6
SPANS = [(i, p) for p in (1, 2, 3) for i in range(LAYERS - p + 1)]
RESIDUAL, REFERENCE = Collect(max_span=3), Collect(mode="reference", max_span=3)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    lengths = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return float(a @ b) / lengths if lengths else 0.0


def chain(layers: int, *shape: int) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of a decoder that adds something after its first layer only."""
    states = list(random(layers + 2, *shape))
    return [states[0], *states[2:-1]], [states[1], *states[3:]]  # y_0 is not x_1, y_1 is x_2, ...


@settings(max_examples=25, deadline=None)
@given(
    layers=st.integers(1, 4),
    rows=st.integers(1, 3),
    tokens=st.integers(1, 6),
    most=st.sampled_from([1, 40, 100, 2**20]),
    seed=st.integers(0, 9),
)
def test_sums_are_those_of_single_tokens(
    layers: int, rows: int, tokens: int, most: int, seed: int
) -> None:
    inputs, outputs = chain(layers, rows, tokens, 5)
    inputs[0][0, 0] = 0
    masks = random(2, rows, tokens, seed=seed) > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cosines_module._CHUNK, "cpu", most)
        cosines, sums = token_sums(inputs, outputs, masks, pooled=True)
    assert sums is not None
    expected, expected_sums = torch.zeros_like(cosines), torch.zeros_like(sums)
    for b, t in np.ndindex(rows, tokens):
        for i, j in np.ndindex(layers, layers):
            expected[b, masks[:, b, t], i, j] += cosine(inputs[i][b, t], outputs[j][b, t])
        for i in range(layers if masks[:, b, t].any() else 0):
            expected_sums[b, 0, i] += inputs[i][b, t]
            expected_sums[b, 1, i] += outputs[i][b, t]
    torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(sums, expected_sums, rtol=0, atol=1e-5)


def test_a_tensor_that_is_output_and_next_input_is_read_once() -> None:
    inputs, outputs = chain(5, 1, 3, 4)
    states, x, y = cosines_module._distinct(inputs, outputs)
    assert len(states) == 5 + 2
    for indices, tensors in ((x, inputs), (y, outputs)):
        assert all(states[i] is state for i, state in zip(indices, tensors, strict=True))


def test_half_precision_states_are_measured_in_float32() -> None:
    state = random(1, 3, 64).bfloat16()
    cosines, _ = token_sums([state], [state], torch.ones(1, 1, 3).bool(), pooled=False)
    assert cosines.dtype == torch.float64
    assert cosines.item() == pytest.approx(3, abs=1e-6)


def test_many_tokens_add_up_without_loss() -> None:
    state = random(1, 1, 4).expand(1, 200_000, 4).contiguous()
    cosines, _ = token_sums([state], [state], torch.ones(1, 1, 200_000).bool(), pooled=False)
    assert cosines.item() / 200_000 == pytest.approx(1, abs=3e-7)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_state_that_is_not_finite_counts_only_within_the_masks(value: float) -> None:
    inputs, outputs = chain(3, 2, 4, 5)
    mask = torch.ones(1, 2, 4).bool()
    mask[0, 0, 3] = False
    expected = token_sums(inputs, outputs, mask, pooled=True)
    for state in (*inputs, *outputs):
        state[0, 3] = value
    torch.testing.assert_close(
        token_sums(inputs, outputs, mask, pooled=True), expected, rtol=0, atol=0
    )
    inputs[2][1, 0, 0] = value  # which is outputs[1], too
    cosines, _ = token_sums(inputs, outputs, mask, pooled=False)
    broken = [[j == 1 or i == 2 for j in range(3)] for i in range(3)]
    assert cosines[1, 0].isnan().tolist() == broken
    assert not cosines[0].isnan().any()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 30))
def test_chunks_cover_a_batch_once(rows: int, tokens: int, most: int) -> None:
    seen = torch.zeros(rows, tokens)
    for r, t in cosines_module._chunks(rows, tokens, most):
        assert seen[r, t].numel() <= most
        seen[r, t] += 1
    assert (seen == 1).all()


def test_the_last_token_is_masked_wherever_the_padding_lies() -> None:
    attended = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 0]]).bool()
    assert last_tokens(attended).int().argmax(-1).tolist() == [1, 3, 3, 1]
    assert last_tokens(attended).sum(-1).tolist() == [1] * 4


def batch_of(processor: Any, *rows: dict[str, Any], side: str = "right") -> Inputs:
    return collate([encode_prompt(processor, row) for row in rows], pad_token_id=0, side=side)


@pytest.fixture(scope="module")
def with_image(processor: Any) -> Inputs:
    return batch_of(processor, models.row(1, images=2))


@torch.inference_mode()
def test_cosines_and_pooled_states_are_means_over_tokens(dense: Any, with_image: Inputs) -> None:
    measurements = measure_batch(dense, with_image, RESIDUAL)
    inputs, outputs = residual_states(dense, with_image)
    is_image = with_image["input_ids"][0] == dense.config.image_token_id
    tokens = torch.arange(len(is_image))
    assert [tuple(span) for span in measurements["spans"].tolist()] == SPANS
    for (first, span), cosines in zip(SPANS, measurements["cosines"][0], strict=True):
        pairs = zip(inputs[first][0], outputs[first + span - 1][0], strict=True)
        slow = np.array([cosine(a, b) for a, b in pairs])
        kinds = (tokens, tokens[is_image], tokens[~is_image], tokens[-1:])
        np.testing.assert_allclose(cosines, [slow[kind].mean() for kind in kinds], atol=1e-5)
    for side, states in enumerate((inputs, outputs)):
        means = torch.stack(states)[:, 0].mean(1)  # [L, d]
        np.testing.assert_allclose(measurements["pooled"][0, side], means, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("params", [RESIDUAL, REFERENCE], ids=["residual", "reference"])
def test_a_padded_batch_measures_as_rows_one_by_one(
    dense: Any, processor: Any, params: Collect, side: str
) -> None:
    rows = models.rows(6)
    together = measure_batch(dense, batch_of(processor, *rows, side=side), params)
    for i, row in enumerate(rows):
        alone = measure_batch(dense, batch_of(processor, row), params)
        for name, tolerance in (("cosines", 1e-5), ("pooled", 1e-4), ("counts", 0)):
            np.testing.assert_allclose(
                together[name][i], alone[name][0], rtol=tolerance, atol=tolerance
            )
        prompt = len(encode_prompt(processor, row)["input_ids"])
        assert alone["counts"][0].tolist() == [prompt, 16 * (i % 3)]


@pytest.mark.parametrize("seed", [1, 2])
def test_reference_scores_compare_true_inputs_and_end_before_the_last_layer(
    dense: Any, processor: Any, seed: int
) -> None:
    batch = batch_of(processor, models.row(seed, images=2))
    measurements = measure_batch(dense, batch, REFERENCE)
    with torch.inference_mode():
        x, y = residual_states(dense, batch)
    spans = [(i, p) for i, p in SPANS if i + p < LAYERS]
    assert [tuple(span) for span in measurements["spans"].tolist()] == spans
    means = [  # of `cos(x_i, x_{i+p})` and `cos(x_i, y_{i+p-1})` over tokens
        [
            np.mean([cosine(a, b) for a, b in zip(x[i][0], end[0], strict=True)])
            for end in (x[i + p], y[i + p - 1])
        ]
        for i, p in spans
    ]
    true_inputs, residual = np.transpose(means)
    np.testing.assert_allclose(measurements["cosines"][0, :, 0], true_inputs, rtol=0, atol=1e-5)
    deepstack = np.array([i + p <= 3 for i, p in spans])  # the span ends where features are added
    assert (abs(true_inputs - residual) > 1e-4).tolist() == deepstack.tolist()
    for side, states in enumerate((x[:-1], x[1:])):
        pooled = torch.stack(states)[:, 0].mean(1)  # [L-1, d]
        np.testing.assert_allclose(measurements["pooled"][0, side], pooled, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("layer", "named"), [(0, 1), (2, 3)])
def test_a_reference_state_that_is_not_finite_is_named_by_the_layer_it_enters(
    dense_dir: Path, processor: Any, layer: int, named: int
) -> None:
    model = open_model(dense_dir, dtype="float32")
    model.model.language_model.layers[layer].mlp.down_proj.weight.data[0] = math.nan
    with pytest.raises(NotFinite, match=f"the input of layer {named} is not finite"):
        measure_batch(model, batch_of(processor, models.row(1)), REFERENCE)


def test_bfloat16_stays_close_to_float32() -> None:
    demo = Path(__file__).parents[2] / "data/demo"
    rows = pq.ParquetFile(demo / "test.parquet").read_row_group(0).slice(0, 16).to_pylist()
    batch = batch_of(open_processor(demo / "model"), *rows)
    exact, half = (
        measure_batch(open_model(demo / "model", dtype=dtype), batch, Collect())["cosines"]
        for dtype in ("float32", "bfloat16")
    )
    differences = np.abs(half - exact)[..., 0]  # [B, S], all tokens
    assert 0 < differences.max() < 2e-3
    assert np.abs(half.mean(0) - exact.mean(0))[..., 0].max() < 1e-3  # of what scores are made
