"""Baselines of INTERLACE: its ablations by chance and in a row, and rules layer by layer.

Sources: INTERLACE (arXiv 2511.19676, table 5); ShortGPT (arXiv 2403.03853); the block by angular
distance (arXiv 2403.17887).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Set

from interlace.methods.choice import Choice, Method, Request, attainable, neighbours
from interlace.plan.record import Group
from interlace.scores.table import ANGULAR, Scores


def consecutive(scores: Scores, request: Request) -> Choice:
    """Drop the run of K layers that starts at the greatest `S_1`; tune the K after it.

    The run is shifted down when it would run off the end of the unprotected layers with a score.
    Where fewer than K layers follow it, the nearest ones before it are tuned as well.
    """
    layer = {i: value for i, value in scores.of_span(1).items() if i in request.free}
    runs = longest_runs(layer.keys(), request)
    if not runs:
        return Choice.of_groups([])
    best = max(layer, key=lambda i: (layer[i], -i))
    run = max((run for run in runs if run[0] <= best), default=runs[0], key=lambda run: run[0])
    return _run(run, layer[best], scores, request)


def angular_block(scores: Scores, request: Request) -> Choice:
    """Drop the run of K layers that turns the last token's state least; tune the K after it."""
    runs = longest_runs(request.free & scores.of_span(1, ANGULAR).keys(), request)
    if not runs:
        return Choice.of_groups([])
    angle = scores.of_span(len(runs[0]), ANGULAR)
    best = min(runs, key=lambda run: (angle[run[0]], run[0]))
    return _run(best, angle[best[0]], scores, request)


def longest_runs(layers: Set[int], request: Request) -> list[range]:
    """Return all runs of K neighbours among some layers, from the lowest up; none if K is 0.

    Where no run is as long and the policy is `fewer`, the longest are returned.

    Raises:
        InputError: no run is as long, and the policy is another; names the largest feasible K.
    """
    lengths: dict[int, int] = {}  # of the run that starts at a layer
    for layer in sorted(layers, reverse=True):
        lengths[layer] = lengths.get(layer + 1, 0) + 1
    longest = max(lengths.values(), default=0)
    length = attainable(
        request, longest, "the longest run of layers with a score that may go has {}"
    )
    starts = [layer for layer in sorted(lengths) if lengths[layer] >= length]
    return [range(first, first + length) for first in starts] if length else []


def _run(run: range, score: float, scores: Scores, request: Request) -> Choice:
    drop = tuple(run)
    tune = tuple(sorted(neighbours(drop, scores.n_layers, request.tuned_before)))
    return Choice.of_groups([Group(kind="run", layers=drop, score=score, drop=drop, tune=tune)])


def random(scores: Scores, request: Request) -> Choice:
    """Drop K layers by chance, tune K of the survivors by chance.

    The order of drawing depends on the seed alone, so a smaller K drops some of the layers that a
    larger one does.
    """
    drops = attainable(request, len(request.free), "only {} layers may go")
    drop = _shuffled(request.free, f"drop:{request.seed}")[:drops]
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
