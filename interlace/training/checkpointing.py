"""Gradient checkpointing of the decoder layers that gradients pass through.

The graph begins at the lowest trained weight. The layers below it keep no activations, so there is
nothing to checkpoint.
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
from interlace.model.projector import projector_weights
from interlace.params.healing import Recipe
from interlace.system import distributed
from interlace.training.engines import all_gather

FREE_SHARE = 0.5  # of the free memory: `auto` checkpoints passes whose activations would fill more


class GradientCheckpointing:
    """`finetune.gradient_checkpointing`: turns it on or off, pass by pass."""

    def __init__(self, model: nn.Module, params: Recipe) -> None:
        self.layers = graph_layers(model)
        self.setting = params.gradient_checkpointing
        affordable = torch.tensor(affordable_tokens(model, self.layers, free_bytes()))
        self.affordable_tokens = int(all_gather(affordable.to(distributed.device())).min())

    def set_for(self, tokens: int) -> None:
        """Turn it on or off for a pass.

        Args:
            tokens: of the pass, with padding, in the process that has most.
        """
        if self.setting == "auto":
            set_checkpointing(self.layers, tokens > self.affordable_tokens)
        else:
            set_checkpointing(self.layers, self.setting)


def graph_layers(model: nn.Module) -> list[nn.Module]:
    """Return the decoder layers that gradients pass through: from the lowest trained weight up.

    Args:
        model: with only the trained weights unfrozen.
    """
    layers = list(decoder_layers(model))
    if any(weight.requires_grad for weight in projector_weights(model).values()):
        return layers
    trained = (any(w.requires_grad for w in layer.parameters()) for layer in layers)
    return layers[next((n for n, is_trained in enumerate(trained) if is_trained), len(layers)) :]


def set_checkpointing(layers: Sequence[nn.Module], enabled: bool) -> None:
    """Turn gradient checkpointing of decoder layers on or off.

    Args:
        layers: of the decoder; those of all supported families implement it.
        enabled: keep only the layers' inputs and recompute the rest in the backward pass.
    """
    for layer in layers:
        layer.gradient_checkpointing = enabled  # type: ignore[assignment]
        layer._gradient_checkpointing_func = functools.partial(  # type: ignore[assignment]
            checkpoint, use_reentrant=False
        )


def activation_bytes(model: nn.Module, layers: Sequence[nn.Module]) -> int:
    """Estimate the activations of one token in the graph: inputs and outputs of all matrices."""
    text: Any = model.config.get_text_config(decoder=True)  # type: ignore[union-attr,operator]
    experts_per_token = getattr(text, "num_experts_per_tok", None) or 1
    total = 0
    for layer in layers:
        for weight in layer.parameters():
            shape = getattr(weight, "ds_shape", weight.shape)  # ZeRO-3 partitions the weight itself
            if len(shape) > 1:
                matrices = experts_per_token if len(shape) == 3 else 1  # [experts, out, in]
                total += matrices * sum(shape[-2:]) * weight.element_size()
    return total


def free_bytes() -> int:
    """Return the free memory of the GPU, or of the machine without one."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return int(psutil.virtual_memory().available)


def affordable_tokens(model: nn.Module, layers: Sequence[nn.Module], free: int) -> int:
    """Return the largest pass, in tokens with padding, that `auto` does not checkpoint.

    Args:
        model: the model that is trained.
        layers: those that gradients pass through.
        free: free memory, bytes.
    """
    return int(FREE_SHARE * free) // max(activation_bytes(model, layers), 1)
