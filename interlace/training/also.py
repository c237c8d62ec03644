"""The weights that `finetune.also` trains beside the planned layers.

INTERLACE's published code (arXiv 2511.19676) trains `lm_head.weight` where it is not tied to the
token embeddings; the paper speaks of layers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.config import tied_head
from interlace.errors import InputError
from interlace.params.healing import Also, Recipe
from interlace.sources.pinned import PinnedModel

if TYPE_CHECKING:
    from torch import nn


def check_also(recipe: Recipe, model: PinnedModel) -> None:
    """Check that the dense model has what the recipe trains, from config.json alone.

    Raises:
        InputError: a projector of a family without images, or a head without weights of its own.
    """
    if "projector" in recipe.also and not model.takes_images:
        raise InputError(
            f"finetune.also = projector: {model.id}: {model.model_type} takes text alone and has no"
            " projector; remove it from the list"
        )
    if "lm_head" in recipe.also:
        _check_untied(model.configuration())


def _check_untied(dense: Checkpoint) -> None:
    """Refuse a head that shares the weights of the token embeddings; config.json says so."""
    if tied_head(dense.config, str(dense.config_file)):
        raise InputError(
            f"finetune.also = lm_head: {dense.config_file} ties the head to the token embeddings"
            " (tie_word_embeddings), which are not trained; remove it from the list"
        )


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
