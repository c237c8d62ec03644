"""The ablations that INTERLACE is compared with (arXiv 2511.19676, table 5)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from interlace.errors import InputError
from interlace.methods.choice import Choice, Group, Request
from interlace.scores import Scores


def _enough(request: Request) -> None:
    if request.drops > len(request.free):
        raise InputError(
            f"{request.drops} layers cannot be dropped: only {len(request.free)} are not protected;"
            " lower ratio or protect fewer layers"
        )


def consecutive(scores: Scores, request: Request) -> Choice:
    """Drop the run of K layers that starts at the greatest `S_1`; tune the K behind it.

    The run is shifted down when it would run off the end of the unprotected layers. Where fewer
    than K layers follow it, the nearest ones before it are tuned as well.

    Raises:
        InputError: more layers are asked for than are unprotected.
    """
    _enough(request)
    layer = {i: value for i, value in scores.of_span(1).items() if i in request.free}
    best = max(layer, key=lambda i: (layer[i], -i))
    first = min(best, max(request.free) + 1 - request.drops)
    drop = tuple(range(first, first + request.drops))
    behind = range(first + request.drops, scores.n_layers)
    before = range(first - 1, -1, -1)
    tune = tuple(sorted([*behind, *before][: request.drops]))
    group = Group(
        kind="run", first=first, span=request.drops, score=layer[best], drop=drop, tune=tune
    )
    return Choice.of_groups([group])


def random(scores: Scores, request: Request) -> Choice:
    """Drop K layers by chance, tune K of the survivors by chance.

    The order of drawing depends on the seed alone, so a smaller K drops a part of what a larger
    one does.

    Raises:
        InputError: more layers are asked for than are unprotected.
    """
    _enough(request)
    drop = _shuffled(request.free, f"drop:{request.seed}")[: request.drops]
    survivors = set(range(scores.n_layers)) - set(drop)
    tune = _shuffled(survivors, f"tune:{request.seed}")[: request.drops]
    groups = [Group(kind="layer", first=i, span=1, score=None, drop=(i,)) for i in drop]
    return Choice(groups=tuple(groups), drop=frozenset(drop), tune=frozenset(tune))


def _shuffled(layers: Iterable[int], key: str) -> list[int]:
    """A uniform order that is the same on every platform and version of Python."""
    return sorted(layers, key=lambda i: hashlib.sha256(f"{key}:{i}".encode()).digest())
