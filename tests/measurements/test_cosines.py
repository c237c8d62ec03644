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
from interlace.measurements.cosines import (
    NotFinite,
    last_tokens,
    measure_batch,
    spans_up_to,
    token_sums,
)
from interlace.model.chat import Inputs, collate, encode_prompt
from interlace.model.decoder import decoder_layers
from interlace.model.open import open_model, open_processor
from interlace.model.states import residual_states
from interlace.params.measuring import Collect

LAYERS = 6
KINDS = ["all", "vision", "text", "last"]
RESIDUAL, REFERENCE = Collect(max_span=3), Collect(mode="reference", max_span=3)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cosine(a: Tensor, b: Tensor) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    lengths = [math.sqrt(sum(x * x for x in v.tolist())) for v in (a, b)]
    return dot / (lengths[0] * lengths[1]) if all(lengths) else 0.0


def chain(layers: int, *shape: int) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of a decoder that adds something after its first layer only."""
    states = list(drawn(layers + 2, *shape))
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
    masks = drawn(2, rows, tokens, seed=seed) > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cosines_module._CHUNK, "cpu", most)
        cosines, sums = token_sums(inputs, outputs, masks, pooled=True)
    assert sums is not None
    for b in range(rows):
        for m in range(2):
            counted = [t for t in range(tokens) if masks[m, b, t]]
            for i in range(layers):
                for j in range(layers):
                    slow = sum(cosine(inputs[i][b, t], outputs[j][b, t]) for t in counted)
                    assert cosines[b, m, i, j].item() == pytest.approx(slow, abs=1e-5)
        counted = [t for t in range(tokens) if masks[:, b, t].any()]
        for side, states in enumerate((inputs, outputs)):
            for i in range(layers):
                slow_sum = sum((states[i][b, t] for t in counted), torch.zeros(5))
                torch.testing.assert_close(sums[b, side, i].float(), slow_sum)


def test_a_tensor_that_is_output_and_next_input_is_read_once() -> None:
    inputs, outputs = chain(5, 1, 3, 4)
    states, x, y = cosines_module._distinct(inputs, outputs)
    assert len(states) == 5 + 2
    assert all(states[i] is state for i, state in zip(x, inputs, strict=True))
    assert all(states[i] is state for i, state in zip(y, outputs, strict=True))


def test_half_precision_states_are_measured_in_float32() -> None:
    state = drawn(1, 3, 64).bfloat16()
    cosines, _ = token_sums([state], [state], torch.ones(1, 1, 3).bool(), pooled=False)
    assert cosines.dtype == torch.float64
    assert cosines.item() == pytest.approx(3, abs=1e-6)


def test_many_tokens_add_up_without_loss() -> None:
    state = drawn(1, 1, 4).expand(1, 200_000, 4).contiguous()
    cosines, _ = token_sums([state], [state], torch.ones(1, 1, 200_000).bool(), pooled=False)
    assert cosines.item() / 200_000 == pytest.approx(1, abs=3e-7)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_what_lies_outside_of_the_masks_does_not_count(value: float) -> None:
    inputs, outputs = chain(3, 2, 4, 5)
    mask = torch.ones(1, 2, 4).bool()
    mask[0, 0, 3] = False
    expected = token_sums(inputs, outputs, mask, pooled=True)
    for state in (*inputs, *outputs):
        state[0, 3] = value
    found = token_sums(inputs, outputs, mask, pooled=True)
    for before, after in zip(expected, found, strict=True):
        assert before is not None and after is not None and torch.equal(before, after)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_state_that_is_not_finite_has_no_cosine(value: float) -> None:
    inputs, outputs = chain(3, 2, 4, 5)
    inputs[2][1, 0, 0] = value  # which is outputs[1], too
    cosines, _ = token_sums(inputs, outputs, torch.ones(1, 2, 4).bool(), pooled=False)
    assert cosines[1, 0].isnan().tolist() == [
        [j == 1 or i == 2 for j in range(3)] for i in range(3)
    ]


def test_a_state_of_zeros_has_cosine_zero() -> None:
    zero, other = torch.zeros(1, 1, 4), drawn(1, 1, 4)
    cosines, _ = token_sums([zero], [other], torch.ones(1, 1, 1).bool(), pooled=False)
    assert cosines.item() == 0


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 30))
def test_chunks_cover_a_batch_once(rows: int, tokens: int, most: int) -> None:
    seen = torch.zeros(rows, tokens)
    for r, t in cosines_module._chunks(rows, tokens, most):
        assert seen[r, t].numel() <= most
        seen[r, t] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("longest", [1, 3, 5, 6, None])
def test_every_span_is_listed_once_shorter_ones_first(longest: int | None) -> None:
    spans = [tuple(span) for span in spans_up_to(longest, 5).tolist()]
    most = min(longest or 5, 5)
    expected = [(i, p) for p in range(1, most + 1) for i in range(5 - p + 1)]
    assert spans == expected


def test_the_last_token_is_found_wherever_the_padding_lies() -> None:
    attended = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 0]]).bool()
    assert last_tokens(attended).int().argmax(-1).tolist() == [1, 3, 3, 1]
    assert last_tokens(attended).sum(-1).tolist() == [1] * 4


def batch_of(processor: Any, *rows: dict[str, Any], side: str = "right") -> Inputs:
    return collate([encode_prompt(processor, row) for row in rows], pad_token_id=0, side=side)


@pytest.fixture(scope="module")
def with_image(processor: Any) -> Inputs:
    return batch_of(processor, models.row(1, images=2))


def slow_cosine(model: Any, batch: Inputs, first: int, span: int, kind: str) -> float:
    """`mean over tokens t of cos(x_i[t], y_{i+p-1}[t])` of one sample, token by token."""
    with torch.inference_mode():
        inputs, outputs = residual_states(model, batch)
    is_image = (batch["input_ids"][0] == model.config.image_token_id).tolist()
    places = range(len(is_image))
    counted = {
        "all": list(places),
        "vision": [t for t in places if is_image[t]],
        "text": [t for t in places if not is_image[t]],
        "last": [len(is_image) - 1],
    }[kind]
    total = 0.0
    for t in counted:
        a, b = inputs[first][0, t].double(), outputs[first + span - 1][0, t].double()
        total += float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
    return total / len(counted)


@pytest.mark.parametrize("kind", KINDS)
def test_cosines_are_means_over_tokens(dense: Any, with_image: Inputs, kind: str) -> None:
    measured = measure_batch(dense, with_image, RESIDUAL)
    for number, (first, span) in enumerate(measured["spans"].tolist()):
        expected = slow_cosine(dense, with_image, first, span, kind)
        found = measured["cosines"][0, number, KINDS.index(kind)]
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("params", [RESIDUAL, REFERENCE], ids=["residual", "reference"])
def test_a_padded_batch_measures_as_rows_one_by_one(
    dense: Any, processor: Any, params: Collect, side: str
) -> None:
    rows = models.rows(6)
    together = measure_batch(dense, batch_of(processor, *rows, side=side), params)
    for i, row in enumerate(rows):
        alone = measure_batch(dense, batch_of(processor, row), params)
        np.testing.assert_allclose(together["cosines"][i], alone["cosines"][0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(together["pooled"][i], alone["pooled"][0], rtol=1e-4, atol=1e-4)
        assert together["counts"][i].tolist() == alone["counts"][0].tolist()
        assert alone["counts"][0, 1] == 16 * (i % 3)


def test_a_prompt_without_images_has_no_vision_cosine(dense: Any, processor: Any) -> None:
    measured = measure_batch(dense, batch_of(processor, models.row(3, images=0)), RESIDUAL)
    assert np.isnan(measured["cosines"][0]).any(0).tolist() == [False, True, False, False]


def test_pooled_states_are_means_over_tokens(dense: Any, with_image: Inputs) -> None:
    with torch.inference_mode():
        expected = residual_states(dense, with_image)
    pooled = measure_batch(dense, with_image, RESIDUAL)["pooled"]
    for side in (0, 1):
        for i in range(LAYERS):
            mean = expected[side][i][0].mean(0).numpy()
            np.testing.assert_allclose(pooled[0, side, i], mean, rtol=1e-4, atol=1e-4)


def test_states_are_pooled_only_where_asked(dense: Any, with_image: Inputs) -> None:
    assert "pooled" not in measure_batch(dense, with_image, RESIDUAL, pooled=False)


def test_reference_scores_are_those_of_output_hidden_states(dense: Any, with_image: Inputs) -> None:
    measured = measure_batch(dense, with_image, REFERENCE)
    with torch.inference_mode():
        states = dense.model(**with_image, output_hidden_states=True).hidden_states
    expected = {
        (i, p): torch.cosine_similarity(states[i][0], states[i + p][0], dim=-1).mean().item()
        for p in (1, 2, 3)
        for i in range(LAYERS - p)
    }
    spans = map(tuple, measured["spans"].tolist())
    found = dict(zip(spans, measured["cosines"][0, :, 0], strict=True))
    assert found.keys() == expected.keys()
    assert all(found[span] == pytest.approx(expected[span], abs=1e-5) for span in expected)


def test_reference_scores_differ_on_deepstack_layers(dense: Any, with_image: Inputs) -> None:
    true = measure_batch(dense, with_image, RESIDUAL)
    published = measure_batch(dense, with_image, REFERENCE)
    assert abs(true["cosines"][0, 1, 0] - published["cosines"][0, 1, 0]) > 1e-4


def test_bfloat16_stays_close_to_float32() -> None:
    demo = Path(__file__).parents[2] / "data/demo"
    rows = pq.ParquetFile(demo / "test.parquet").read_row_group(0).slice(0, 16).to_pylist()
    batch = batch_of(open_processor(demo / "model"), *rows)
    exact, half = (
        measure_batch(open_model(demo / "model", dtype=dtype), batch, Collect())["cosines"]
        for dtype in ("float32", "bfloat16")
    )
    apart = np.abs(half - exact)[..., 0]  # [B, S], all tokens
    assert 0 < apart.max() < 2e-3
    assert np.abs(half.mean(0) - exact.mean(0))[..., 0].max() < 1e-3  # of what scores are made


def test_the_first_layer_whose_output_is_not_finite_is_named(
    dense_dir: Path, with_image: Inputs
) -> None:
    model = open_model(dense_dir, dtype="float32")
    decoder_layers(model)[2].mlp.down_proj.weight.data[0, 0] = math.nan
    with pytest.raises(NotFinite) as caught:
        measure_batch(model, with_image, RESIDUAL)
    assert (caught.value.row, caught.value.layer, caught.value.side) == (0, 2, "output")


def test_the_row_that_is_not_finite_is_named(dense_dir: Path, processor: Any) -> None:
    model = open_model(dense_dir, dtype="float32")
    rows = models.rows(3)
    rows[1]["texts"][0]["user"] = "What number is 7"  # the only prompt with this digit
    seven = processor.tokenizer.convert_tokens_to_ids("7")
    model.get_input_embeddings().weight.data[seven] = math.inf
    with pytest.raises(NotFinite) as caught:
        measure_batch(model, batch_of(processor, *rows), RESIDUAL)
    assert (caught.value.row, caught.value.layer, caught.value.side) == (1, 0, "input")
