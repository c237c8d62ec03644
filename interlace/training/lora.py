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
NAME = "default"  # peft's name of the one adapter of a layer


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
    """Return the full names of the linears of some decoder layers."""
    prefix = decoder_prefix(model)
    return [
        f"{prefix}.{position}.{name}"
        for position in positions
        for name, module in decoder_layers(model)[position].named_modules()
        if isinstance(module, nn.Linear)
    ]


def is_adapter(name: str) -> bool:
    """Return True if a parameter of that name belongs to an adapter."""
    return ".lora_" in name


def merged_weights(model: nn.Module, gather: Gather) -> dict[str, Tensor]:
    """Return the merged weights `W + alpha / rank * B A` of adapted linears, float32, by name.

    Args:
        model: with adapters.
        gather: returns a context in which a parameter is complete.
    """
    weights = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            adapted: Any = module
            down, up = adapted.lora_A[NAME].weight, adapted.lora_B[NAME].weight  # [r, in], [out, r]
            with gather(down), gather(up), gather(adapted.base_layer.weight):
                change = adapted.scaling[NAME] * (up.detach().float() @ down.detach().float())
                weights[f"{name}.weight"] = (adapted.base_layer.weight.detach() + change).cpu()
    return weights
