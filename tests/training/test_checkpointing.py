"""Layers with gradient checkpointing, and the rule of `auto`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import pytest
import torch
from conftest import LAYERS
from transformers import AutoModelForImageTextToText

from interlace.healing.finetune import freeze_all_but
from interlace.model.decoder import decoder_layers
from interlace.params.healing import Also, Finetune
from interlace.training.checkpointing import (
    GradientCheckpointing,
    activation_bytes,
    affordable_tokens,
    graph_layers,
    set_checkpointing,
)


@pytest.fixture
def model(dense_dir: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(dense_dir, dtype=torch.float32).train()


def checkpointed(model: Any) -> list[int]:
    return [i for i, layer in enumerate(decoder_layers(model)) if layer.gradient_checkpointing]


def test_only_layers_with_a_graph_are_checkpointed(model: Any) -> None:
    freeze_all_but(model, [4, 2])
    set_checkpointing(graph_layers(model), True)
    assert checkpointed(model) == [2, 3, 4, 5]
    assert not any(block.gradient_checkpointing for block in model.model.visual.blocks)


def test_a_token_s_activations_are_the_inputs_and_outputs_of_matrices(model: Any) -> None:
    """d = 32, 2 heads and 1 key-value head of 16, intermediate 48, float32."""
    freeze_all_but(model, [4])
    attention, layers = (32 + 32) + 2 * (32 + 16) + (32 + 32), graph_layers(model)
    token = activation_bytes(model, layers)
    assert token == 2 * 4 * (attention + 3 * (32 + 48))
    assert affordable_tokens(model, layers, free=200 * token) == 100  # half of the free memory


@pytest.mark.parametrize(("also", "lowest"), [("projector", 0), ("norms", 0), ("lm_head", LAYERS)])
def test_the_graph_begins_at_the_lowest_trained_weight(
    tmp_path: Path, also: Also, lowest: int
) -> None:
    folder = models.untied_qwen3_vl(tmp_path, layers=LAYERS)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    layers = list(decoder_layers(model))
    freeze_all_but(model, [], [also])
    assert graph_layers(model) == layers[lowest:]
    freeze_all_but(model, [3], [also])
    assert graph_layers(model) == layers[min(lowest, 3) :]


@pytest.mark.parametrize(
    ("setting", "tokens", "enabled"),
    [(True, 1, True), (False, 10**9, False), ("auto", 1, False), ("auto", 10**12, True)],
)
def test_auto_checkpoints_large_passes_only(
    model: Any, setting: bool | str, tokens: int, enabled: bool
) -> None:
    params = Finetune(gradient_checkpointing=setting)
    freeze_all_but(model, [3])
    GradientCheckpointing(model, params).set_for(tokens)
    assert checkpointed(model) == ([3, 4, 5] if enabled else [])
