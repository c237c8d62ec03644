"""The output head among the trained weights, `finetune.train_lm_head`.

As INTERLACE's published code has it (arXiv 2511.19676) where the head is not tied to the token
embeddings: `lm_head.weight` is trained beside the planned layers. The paper speaks of layers alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.config import tied_head
from interlace.errors import InputError
from interlace.params.healing import Recipe
from interlace.sources.pinned import PinnedModel

if TYPE_CHECKING:
    from torch import nn

FIELD = "finetune.train_lm_head = true"
WEIGHT = "lm_head.weight"


def check_head(recipe: Recipe, model: PinnedModel) -> None:
    """Check that the dense model has the head that the recipe trains, from config.json alone.

    Raises:
        InputError: the head is to be trained, and is tied to the token embeddings.
    """
    if recipe.train_lm_head:
        check_untied(model.configuration())


def check_untied(dense: Checkpoint) -> None:
    """Check that the head has weights of its own; config.json says so.

    Raises:
        InputError: it shares those of the token embeddings.
    """
    if tied_head(dense.config, str(dense.config_file)):
        raise InputError(
            f"{FIELD}: {dense.config_file} ties the head to the token embeddings"
            " (tie_word_embeddings), which are not trained; set it to false"
        )


def stored_head(checkpoint: Checkpoint) -> str:
    """Return the stored name of the head's weight.

    Raises:
        InputError: the head is tied, or its weight is not stored once.
    """
    check_untied(checkpoint)
    names = [name for name in checkpoint.tensors if f".{name}".endswith(f".{WEIGHT}")]
    if len(names) != 1:
        raise InputError(
            f"{FIELD}: {checkpoint.folder} stores {len(names)} tensors named {WEIGHT}, not one; set"
            " it to false"
        )
    return names[0]


def head_weight(model: nn.Module) -> nn.Parameter:
    """Return the weight of the head of an opened model, [V, d]."""
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    weight: nn.Parameter = head.weight
    return weight
