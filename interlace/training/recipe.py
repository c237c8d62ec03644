"""The check of a recipe of training, before any long work, from config.json alone."""

from __future__ import annotations

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.config import tied_head
from interlace.errors import InputError
from interlace.params.healing import Recipe
from interlace.sources.pinned import PinnedModel
from interlace.training.reports import check_reports


def check_recipe(recipe: Recipe, model: PinnedModel) -> None:
    """Check that the dense model has what the recipe trains, and that its libraries are installed.

    Raises:
        InputError: a projector of a family without images, a head without weights of its own, or a
            library to report to that is not installed.
    """
    check_reports(recipe)
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
