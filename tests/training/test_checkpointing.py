"""What is recomputed, and the rule of `auto`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from interlace.model.decoder import decoder_layers
from interlace.params.healing import Finetune
from interlace.training.checkpointing import (
    SHARE,
    activation_bytes,
    affordable_tokens,
    graph_layers,
    recompute,
)
from interlace.training.loop import Recomputation


@pytest.fixture
def model(dense_dir: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(dense_dir, dtype=torch.float32).train()


def recomputed(model: Any) -> list[int]:
    return [i for i, layer in enumerate(decoder_layers(model)) if layer.gradient_checkpointing]


def test_only_layers_with_a_graph_recompute(model: Any) -> None:
    recompute(graph_layers(model, [4, 2]), True)
    assert recomputed(model) == [2, 3, 4, 5]
    assert not any(block.gradient_checkpointing for block in model.model.visual.blocks)


def test_a_token_leaves_what_enters_and_leaves_matrices(model: Any) -> None:
    """d = 32, 2 heads and 1 key-value head of 16, intermediate 48, float32."""
    attention = (32 + 32) + 2 * (32 + 16) + (32 + 32)
    assert activation_bytes(model, graph_layers(model, [4])) == 2 * 4 * (attention + 3 * (32 + 48))


@pytest.mark.parametrize(
    ("wanted", "tokens", "on"),
    [(True, 1, True), (False, 10**9, False), ("auto", 1, False), ("auto", 10**12, True)],
)
def test_auto_recomputes_large_passes_only(
    model: Any, wanted: bool | str, tokens: int, on: bool
) -> None:
    budget = Recomputation(model, [3], Finetune(gradient_checkpointing=wanted))
    budget.set(tokens)
    assert recomputed(model) == ([3, 4, 5] if on else [])


def test_auto_keeps_activations_up_to_a_share_of_the_free_memory(model: Any) -> None:
    layers = graph_layers(model, [3])
    each = activation_bytes(model, layers)
    assert affordable_tokens(model, layers, int(100 * each / SHARE)) == 100
