"""A choice written by hand."""

from __future__ import annotations

from collections import Counter

from interlace.errors import InputError
from interlace.methods.choice import Choice, Request
from interlace.plan.record import Group
from interlace.scores.table import Scores


def manual(scores: Scores, request: Request) -> Choice:
    """Drop the layers in `select.drop`, tune those in `select.tune`, freeze the rest.

    Raises:
        InputError: no layer to drop, none to stay, or a layer that does not exist, is named twice
            or is protected.
    """
    drop, tune = request.options.drop, request.options.tune
    last = scores.n_layers - 1
    for name, layers in (("drop", drop), ("tune", tune)):
        field = f"select.{name} = {list(layers)}"
        if outside := [i for i in layers if not 0 <= i <= last]:
            raise InputError(f"{field}: layer {outside[0]} is not one of the layers 0 to {last}")
        if repeated := [i for i, times in Counter(layers).items() if times > 1]:
            raise InputError(f"{field}: layer {repeated[0]} is named twice")
    if not drop:
        raise InputError("method = manual needs the layers to drop: set select.drop, e.g. [4, 9]")
    if len(drop) == scores.n_layers:
        raise InputError(f"select.drop = {list(drop)}: names every layer; one at least must stay")
    if overlap := sorted(set(drop) & set(tune)):
        raise InputError(f"select.drop and select.tune overlap: layer {overlap[0]} is in both")
    if protected := sorted(set(drop) - request.free):
        raise InputError(
            f"select.drop = {list(drop)}: layer {protected[0]} is protected; set"
            " select.protect to none to drop it all the same"
        )
    groups = [Group(kind="layer", layers=(i,), score=None, drop=(i,)) for i in sorted(drop)]
    return Choice(groups=tuple(groups), drop=frozenset(drop), tune=frozenset(tune))
