"""Which survivors are tuned, where it is not those that the method names."""

from __future__ import annotations

from interlace.errors import InputError
from interlace.methods.choice import Choice
from interlace.plan.record import Tuned


def tuned_layers(asked: Tuned, choice: Choice, n_layers: int) -> frozenset[int]:
    """The layers that are tuned in place of those that the method names.

    Args:
        asked: planned: as the method says; spaced: as many, evenly over the survivors; anchors:
            those of the groups; all: every survivor; none.
        choice: what the method answered.
        n_layers: L, of the decoder.

    Raises:
        InputError: anchors are asked for and the method names none.
    """
    survivors = [i for i in range(n_layers) if i not in choice.drop]
    anchors = {group.anchor for group in choice.groups} & set(survivors)
    if asked == "anchors" and not anchors:
        raise InputError("select.tuned = anchors: this method leaves none; set it to planned")
    many = len(choice.tune) or len(choice.drop)
    return {
        "planned": choice.tune,
        "spaced": frozenset(evenly(survivors, many)),
        "anchors": frozenset(i for i in survivors if i in anchors),
        "all": frozenset(survivors),
        "none": frozenset(),
    }[asked]


def evenly(layers: list[int], many: int) -> list[int]:
    """So many of some layers (all, if they are fewer), each from the middle of an equal share."""
    many = min(many, len(layers))
    return [layers[(2 * place + 1) * len(layers) // (2 * many)] for place in range(many)]
