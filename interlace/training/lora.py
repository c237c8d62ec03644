"""Low-rank adapters on the linears of decoder layers (LoRA, arXiv 2106.09685), merged at the end.

The domain-aware paper tunes so (arXiv 2603.20275): rank 32, alpha 64, dropout 0.05, all decoder
linears. peft keeps the adapters; what is written is a stock checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from interlace.errors import InputError
from interlace.model.decoder import decoder_layers, decoder_prefix
from interlace.params.healing import Recipe

Gather = Callable[[nn.Parameter], AbstractContextManager[Any]]
NAME = "default"  # what peft calls the one adapter of a layer


def adapt(model: nn.Module, positions: Sequence[int], params: Recipe) -> None:
    """Add adapters to every linear of some decoder layers; nothing else stays trainable.

    Args:
        model: changed in place; an adapter starts as no change at all.
        positions: of the layers in the decoder.
        params: rank, alpha and dropout.

    Raises:
        InputError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError(
            "finetune.lora_rank needs peft, which is not installed; install it or set it to 0"
        ) from None
    config = LoraConfig(
        r=params.lora_rank,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        target_modules=linears(model, positions),
    )
    inject_adapter_in_model(config, model)


def linears(model: nn.Module, positions: Sequence[int]) -> list[str]:
    """Full names of the linears of some decoder layers."""
    prefix = decoder_prefix(model)
    return [
        f"{prefix}.{position}.{name}"
        for position in positions
        for name, module in decoder_layers(model)[position].named_modules()
        if isinstance(module, nn.Linear)
    ]


def is_adapter(name: str) -> bool:
    """Whether a parameter of that name belongs to an adapter."""
    return ".lora_" in name


def merged(model: nn.Module, gathered: Gather) -> dict[str, Tensor]:
    """The weights `W + alpha / rank * B A` of adapted linears, in float32, by the model's names.

    Args:
        model: with adapters.
        gathered: a block in which a parameter is whole.
    """
    weights = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            parts: Any = module
            down, up = parts.lora_A[NAME].weight, parts.lora_B[NAME].weight  # [r, in], [out, r]
            with gathered(down), gathered(up), gathered(parts.base_layer.weight):
                change = parts.scaling[NAME] * (up.detach().float() @ down.detach().float())
                weights[f"{name}.weight"] = (parts.base_layer.weight.detach() + change).cpu()
    return weights
