"""One batch through the model, against the same numbers worked out slowly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import models
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from interlace.measurements.cosines import NotFinite, measure_batch
from interlace.model.chat import Inputs, collate, encode_prompt
from interlace.model.decoder import decoder_layers
from interlace.model.open import open_model, open_processor
from interlace.model.states import residual_states
from interlace.params.measuring import Collect

LAYERS = 6
KINDS = ["all", "vision", "text", "last"]


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
    measured = measure_batch(dense, with_image, Collect(mode="residual", max_span=3))
    for number, (first, span) in enumerate(measured["spans"].tolist()):
        expected = slow_cosine(dense, with_image, first, span, kind)
        found = measured["cosines"][0, number, KINDS.index(kind)]
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("max_span", [3, 4, LAYERS, LAYERS + 3, None])
def test_every_span_is_measured_once(dense: Any, with_image: Inputs, max_span: int | None) -> None:
    measured = measure_batch(dense, with_image, Collect(mode="residual", max_span=max_span))
    longest = min(max_span or LAYERS, LAYERS)
    expected = [[i, p] for p in range(1, longest + 1) for i in range(LAYERS - p + 1)]
    assert measured["spans"].tolist() == expected
    assert measured["cosines"].shape == (1, len(expected), 4)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("mode", ["residual", "reference"])
def test_a_padded_batch_measures_as_rows_one_by_one(
    dense: Any, processor: Any, mode: str, side: str
) -> None:
    rows = models.rows(6)
    together = measure_batch(
        dense, batch_of(processor, *rows, side=side), Collect(mode=mode, max_span=3)
    )
    for i, row in enumerate(rows):
        alone = measure_batch(dense, batch_of(processor, row), Collect(mode=mode, max_span=3))
        np.testing.assert_allclose(together["cosines"][i], alone["cosines"][0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(together["pooled"][i], alone["pooled"][0], rtol=1e-4, atol=1e-4)
        assert together["counts"][i].tolist() == alone["counts"][0].tolist()
        assert alone["counts"][0, 1] == 16 * (i % 3)


def test_vision_and_text_tokens_make_up_all(dense: Any, with_image: Inputs) -> None:
    measured = measure_batch(dense, with_image, Collect(mode="residual", max_span=3))
    n, n_vision = measured["counts"][0]
    every, vision, text, _ = measured["cosines"][0].T
    np.testing.assert_allclose(n * every, n_vision * vision + (n - n_vision) * text, rtol=1e-6)


def test_a_prompt_without_images_has_no_vision_cosine(dense: Any, processor: Any) -> None:
    measured = measure_batch(
        dense, batch_of(processor, models.row(3, images=0)), Collect(mode="residual", max_span=3)
    )
    assert np.isnan(measured["cosines"][0]).any(0).tolist() == [False, True, False, False]


def test_pooled_states_are_means_over_tokens(dense: Any, with_image: Inputs) -> None:
    with torch.inference_mode():
        expected = residual_states(dense, with_image)
    pooled = measure_batch(dense, with_image, Collect(mode="residual", max_span=3))["pooled"]
    for side in (0, 1):
        for i in range(LAYERS):
            mean = expected[side][i][0].mean(0).numpy()
            np.testing.assert_allclose(pooled[0, side, i], mean, rtol=1e-4, atol=1e-4)


def test_states_are_pooled_only_where_asked(dense: Any, with_image: Inputs) -> None:
    assert "pooled" not in measure_batch(
        dense, with_image, Collect(mode="residual", max_span=3), pooled=False
    )


def test_reference_scores_are_those_of_output_hidden_states(dense: Any, with_image: Inputs) -> None:
    measured = measure_batch(dense, with_image, Collect(mode="reference", max_span=3))
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


def test_reference_scores_leave_out_the_last_layer(dense: Any, with_image: Inputs) -> None:
    spans = measure_batch(dense, with_image, Collect(mode="reference", max_span=3))[
        "spans"
    ].tolist()
    assert max(first + span - 1 for first, span in spans) == LAYERS - 2


def test_reference_scores_differ_on_deepstack_layers(dense: Any, with_image: Inputs) -> None:
    true = measure_batch(dense, with_image, Collect(mode="residual", max_span=3))
    published = measure_batch(dense, with_image, Collect(mode="reference", max_span=3))
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


@pytest.mark.parametrize("layer", [0, 2, 3, LAYERS - 1])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_first_layer_whose_output_is_not_finite_is_named(
    dense_dir: Path, with_image: Inputs, layer: int, value: float
) -> None:
    model = open_model(dense_dir, dtype="float32")
    decoder_layers(model)[layer].mlp.down_proj.weight.data[0, 0] = value
    with pytest.raises(NotFinite) as caught:
        measure_batch(model, with_image, Collect(mode="residual", max_span=None))
    assert (caught.value.row, caught.value.layer, caught.value.side) == (0, layer, "output")


def test_the_row_that_is_not_finite_is_named(dense_dir: Path, processor: Any) -> None:
    model = open_model(dense_dir, dtype="float32")
    rows = models.rows(3)
    rows[1]["texts"][0]["user"] = "What number is 7"  # the only prompt with this digit
    seven = processor.tokenizer.convert_tokens_to_ids("7")
    model.get_input_embeddings().weight.data[seven] = math.inf
    with pytest.raises(NotFinite) as caught:
        measure_batch(model, batch_of(processor, *rows), Collect(mode="residual", max_span=None))
    assert (caught.value.row, caught.value.layer, caught.value.side) == (1, 0, "input")
