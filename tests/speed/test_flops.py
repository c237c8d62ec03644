"""Torch's counter agrees with formulas for Qwen3-VL, and the ideal with Amdahl's law."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interlace.model.bypass import bypassed
from interlace.model.chat import Inputs
from interlace.speed.clock import attention_flops, count_flops
from interlace.speed.flops import Work, ideals

Batch = Callable[..., Inputs]


def layer_flops(config: Any, tokens: int, cached: int = 0) -> int:
    """2 T per weight of the seven projections, and 4 T (T + cached) per query channel."""
    query = config.num_attention_heads * config.head_dim
    key = config.num_key_value_heads * config.head_dim
    weights = config.hidden_size * (2 * query + 2 * key + 3 * config.intermediate_size)
    return int(2 * tokens * weights + 4 * tokens * (tokens + cached) * query)


def vision_flops(config: Any, patches: Sequence[int]) -> int:
    """Patch embedding, blocks, merger and DeepStack's mergers; attention stays in one image."""
    width, total = config.hidden_size, sum(patches)
    patch = config.in_channels * config.temporal_patch_size * config.patch_size**2
    block = 2 * total * width * (4 * width + 2 * config.intermediate_size)
    block += 4 * width * sum(count * count for count in patches)
    merged = config.spatial_merge_size**2
    mergers = 1 + len(config.deepstack_visual_indexes)
    merger = 2 * total * width * (merged * width + config.out_hidden_size)
    return int(2 * total * patch * width + config.depth * block + mergers * merger)


@torch.inference_mode()
@pytest.mark.parametrize(("size", "images"), [(1, 0), (1, 2), (2, 1)])
def test_a_request_counts_as_the_formula_says(
    dense: Any, batch: Batch, size: int, images: int
) -> None:
    inputs, text = batch(size, images), dense.config.text_config
    patches = [t * h * w for t, h, w in inputs["image_grid_thw"].tolist()] if images else []
    layers = text.num_hidden_layers * layer_flops(text, inputs["input_ids"].shape[1])
    head = 2 * text.hidden_size * text.vocab_size
    total = count_flops(dense, inputs).total
    vision = vision_flops(dense.config.vision_config, patches)
    assert total == pytest.approx(vision + size * (layers + head), rel=0.01)


@torch.inference_mode()
def test_a_dropped_layer_counts_exactly_as_the_formula_says(dense: Any, batch: Batch) -> None:
    inputs, text = batch(), dense.config.text_config
    tokens = inputs["input_ids"].shape[1]
    work = count_flops(dense, inputs, new_tokens=2)
    with bypassed(dense, [3]):
        pruned = count_flops(dense, inputs, new_tokens=2)
    assert work.total - pruned.total == layer_flops(text, tokens)
    assert work.prefill - pruned.prefill == layer_flops(text, tokens)
    assert work.decode - pruned.decode == layer_flops(text, 1, cached=tokens)


@given(layers=st.integers(2, 40), data=st.data(), layer=st.integers(1, 10**9))
def test_the_ideal_follows_amdahls_law(layers: int, data: st.DataObject, layer: int) -> None:
    drops, rest = data.draw(st.integers(0, layers - 1)), data.draw(st.integers(0, 10**10))
    dense, pruned = (
        Work(total=count * layer + rest, prefill=count * layer)
        for count in (layers, layers - drops)
    )
    metrics = ideals([(dense, pruned)])
    share = dense.prefill / dense.total
    assert metrics["ttft_ideal"] == pytest.approx(1 / (1 - share * drops / layers))
    assert metrics["prefill_ideal"] == pytest.approx(layers / (layers - drops))
    assert "decode_ideal" not in metrics


def test_ideals_are_medians_over_requests() -> None:
    works = [(Work(total=ratio, prefill=1), Work(total=1, prefill=1)) for ratio in (2, 3, 10)]
    assert ideals(works)["ttft_ideal"] == 3


def test_attention_counts_all_queries_on_shared_keys() -> None:
    query, key, value = (2, 8, 10, 16), (2, 2, 12, 16), (2, 2, 12, 4)
    per_head = 2 * 10 * 12 * 16 + 2 * 10 * 12 * 4
    assert attention_flops(query, key, value) == 2 * 8 * per_head
