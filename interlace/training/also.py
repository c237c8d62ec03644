"""The weights that `finetune.also` trains beside the planned layers.

INTERLACE's published code (arXiv 2511.19676) trains `lm_head.weight` where it is not tied to the
token embeddings; the paper speaks of layers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interlace.errors import InputError
from interlace.params.healing import Also

if TYPE_CHECKING:
    from torch import nn


def weights_of(name: Also, model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that a name in `finetune.also` stands for; empty where there are none."""
    from interlace.model.decoder import head_weights, norm_weights
    from interlace.model.projector import projector_weights

    kinds = {"projector": projector_weights, "lm_head": head_weights, "norms": norm_weights}
    return kinds[name](model)


def unfreeze(model: nn.Module, also: Sequence[Also]) -> None:
    """Let what `finetune.also` names be trained.

    Raises:
        InputError: the model has no such weights.
    """
    for name in also:
        weights = weights_of(name, model)
        if not weights:
            raise InputError(
                f"finetune.also = {name}: {type(model).__name__} has no weights of that kind of"
                " its own; remove it from the list"
            )
        for weight in weights.values():
            weight.requires_grad_(True)
