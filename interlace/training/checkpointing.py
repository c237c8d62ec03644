"""Gradient checkpointing where there are activations to save: in the layers that have a graph.

The graph begins at the lowest tuned layer. Below it nothing is kept, so nothing is recomputed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import psutil
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from interlace.model.decoder import decoder_layers

SHARE = 0.5  # of the free memory that a pass may fill with activations before `auto` recomputes


def graph_layers(model: nn.Module, tuned: Sequence[int]) -> list[nn.Module]:
    """The decoder layers that gradients pass through: from the lowest tuned one to the last."""
    return list(decoder_layers(model))[min(tuned) :]


def recompute(layers: Sequence[nn.Module], on: bool) -> None:
    """Keep only the inputs of layers for the way back, and run them again there; or keep all.

    Args:
        layers: of the decoder; those of every supported family know how.
        on: whether to recompute.
    """
    for layer in layers:
        layer.gradient_checkpointing = on  # type: ignore[assignment]
        layer._gradient_checkpointing_func = functools.partial(  # type: ignore[assignment]
            checkpoint, use_reentrant=False
        )


def activation_bytes(model: nn.Module, layers: Sequence[nn.Module]) -> int:
    """About how much a token leaves in the graph: what enters and what leaves matrices."""
    text: Any = model.config.get_text_config(decoder=True)  # type: ignore[union-attr,operator]
    experts = getattr(text, "num_experts_per_tok", None) or 1
    total = 0
    for layer in layers:
        for weight in layer.parameters():
            shape = getattr(weight, "ds_shape", weight.shape)  # ZeRO-3 keeps the whole one aside
            if len(shape) > 1:
                passed = experts if len(shape) == 3 else 1  # [experts, out, in]
                total += passed * sum(shape[-2:]) * weight.element_size()
    return total


def free_bytes() -> int:
    """Memory that is free now: of the GPU, or of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return int(psutil.virtual_memory().available)


def affordable_tokens(model: nn.Module, layers: Sequence[nn.Module], free: int) -> int:
    """The largest pass, in padded tokens, that `auto` keeps all activations of."""
    return int(SHARE * free) // max(activation_bytes(model, layers), 1)
