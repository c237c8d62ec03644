"""The survivors that are tuned, if other ones than the method names."""

from __future__ import annotations

from interlace.errors import InputError
from interlace.methods.choice import Choice
from interlace.params.choosing import Tuned


def tuned_layers(tuned: Tuned, choice: Choice, n_layers: int) -> frozenset[int]:
    """Return the layers that are tuned in place of those that the method names.

    Args:
        tuned: planned: as the method says; spaced: as many, evenly over the survivors; anchors:
            those of the groups; all: all survivors; none.
        choice: the method's choice.
        n_layers: L, of the decoder.

    Raises:
        InputError: `tuned` is anchors, and the method names none.
    """
    survivors = [i for i in range(n_layers) if i not in choice.drop]
    anchors = {group.anchor for group in choice.groups} & set(survivors)
    if tuned == "anchors" and not anchors:
        raise InputError("select.tuned = anchors: this method names none; set it to planned")
    count = len(choice.tune) or len(choice.drop)
    return {
        "planned": choice.tune,
        "spaced": frozenset(spaced_evenly(survivors, count)),
        "anchors": frozenset(i for i in survivors if i in anchors),
        "all": frozenset(survivors),
        "none": frozenset(),
    }[tuned]


def spaced_evenly(layers: list[int], count: int) -> list[int]:
    """Return `count` layers (all, if they are fewer), each from the middle of an equal share."""
    count = min(count, len(layers))
    return [layers[(2 * number + 1) * len(layers) // (2 * count)] for number in range(count)]
