"""Baselines of INTERLACE: its ablations by chance and in a row, and rules layer by layer.

Sources: INTERLACE (arXiv 2511.19676, table 5); ShortGPT (arXiv 2403.03853); the block by angular
distance (arXiv 2403.17887).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from interlace.errors import InputError
from interlace.methods.choice import Choice, Method, Request, attainable, neighbours
from interlace.plan.record import Group
from interlace.scores.table import ANGULAR, Scores


def consecutive(scores: Scores, request: Request) -> Choice:
    """Drop the run of K layers that starts at the greatest `S_1`; tune the K after it.

    The run is shifted down when it would run off the end of the unprotected layers. Where fewer
    than K layers follow it, the nearest ones before it are tuned as well.
    """
    layer = {i: value for i, value in scores.of_span(1).items() if i in request.free}
    starts = run_starts(request)
    if not layer or not starts:
        return Choice.of_groups([])
    best = max(layer, key=lambda i: (layer[i], -i))
    first = max((i for i in starts if i <= best), default=starts[0])
    return _run(first, layer[best], scores, request)


def angular_block(scores: Scores, request: Request) -> Choice:
    """Drop the run of K layers that turns the last token's state least; tune the K after it."""
    starts = run_starts(request)
    if not starts:
        return Choice.of_groups([])
    angle = scores.of_span(attainable(request), ANGULAR)
    candidates = [i for i in starts if i in angle]
    if not candidates:
        raise InputError(
            f"no run of {attainable(request)} unprotected layers was measured; lower ratio, protect"
            " fewer layers, or set collect.mode to residual"
        )
    first = min(candidates, key=lambda i: (angle[i], i))
    return _run(first, angle[first], scores, request)


def run_starts(request: Request) -> list[int]:
    """Return the layers at which a run of K unprotected neighbours can start; none if K is 0.

    Raises:
        InputError: there is no such run; names the largest feasible K.
    """
    drops = attainable(request)
    if not drops:
        return []
    starts = [i for i in sorted(request.free) if set(range(i, i + drops)) <= request.free]
    if not starts:
        longest = drops
        while not any(set(range(i, i + longest)) <= request.free for i in request.free):
            longest -= 1
        raise InputError(
            f"a run of {drops} layers cannot be dropped: the longest that is not protected has"
            f" {longest}; lower ratio or protect fewer layers"
        )
    return starts


def _run(first: int, score: float, scores: Scores, request: Request) -> Choice:
    drop = tuple(range(first, first + attainable(request)))
    tune = tuple(sorted(neighbours(drop, scores.n_layers, request.tuned_before)))
    return Choice.of_groups([Group(kind="run", layers=drop, score=score, drop=drop, tune=tune)])


def random(scores: Scores, request: Request) -> Choice:
    """Drop K layers by chance, tune K of the survivors by chance.

    The order of drawing depends on the seed alone, so a smaller K drops some of the layers that a
    larger one does.
    """
    drop = _shuffled(request.free, f"drop:{request.seed}")[: attainable(request)]
    survivors = set(range(scores.n_layers)) - set(drop) - request.tuned_before
    tune = _shuffled(survivors, f"tune:{request.seed}")[: len(drop)]
    groups = [Group(kind="layer", layers=(i,), score=None, drop=(i,)) for i in drop]
    return Choice(groups=tuple(groups), drop=frozenset(drop), tune=frozenset(tune))


def _shuffled(layers: Iterable[int], key: str) -> list[int]:
    """Return a uniform order that is the same on every platform and version of Python."""
    return sorted(layers, key=lambda i: hashlib.sha256(f"{key}:{i}".encode()).digest())


def dense_ft(scores: Scores, request: Request) -> Choice:
    """Drop nothing, tune the last K layers: the reference that healed models are held against."""
    tune = frozenset(range(scores.n_layers - request.drops, scores.n_layers))
    return Choice(groups=(), drop=frozenset(), tune=tune)


DENSE_FT = Method(dense_ft, needs=(), removes=False)


def shortgpt(scores: Scores, request: Request) -> Choice:
    """Drop the K layers of least block influence, `BI_i = 1 - S_1(i)`; tune their neighbours."""
    influence = {i: 1 - v for i, v in scores.of_span(1).items() if i in request.free}
    order = sorted(influence, key=lambda i: (influence[i], i))
    return Choice.of_ranking(order, influence, scores, request)


def wanda_2_4(scores: Scores, request: Request) -> Choice:
    """Drop no layer; zero 2 of every 4 weights, those of least size times input."""
    return Choice.of_groups([])


def magnitude_2_4(scores: Scores, request: Request) -> Choice:
    """Drop no layer; zero 2 of every 4 weights, the smallest."""
    return Choice.of_groups([])
