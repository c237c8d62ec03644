"""Every method's choice, one step after another, from the papers' words and with no cleverness."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from methods import slow_optimal

from interlace.methods.choice import Request
from interlace.scores.table import Scores

ByLayer = dict[int, float]


@dataclass
class Answer:
    """Layers in the order they go, and those tuned; or the largest K, where this one is refused."""

    drop: list[int]
    tune: set[int]
    refused_at: int | None = None


def of_span(scores: Scores, span: int = 1, criterion: str = "cosine") -> ByLayer:
    starts = range(scores.n_layers - span + 1)
    keys = {first: (criterion, first, span) for first in starts}
    return {first: scores.values[key] for first, key in keys.items() if key in scores.values}


def greatest_first(values: ByLayer, layers: Iterable[int]) -> list[int]:
    """Layers by value, the lower one first among equals."""
    return sorted(sorted(layers), key=lambda layer: values[layer], reverse=True)


def neighbours(drop: list[int], scores: Scores, request: Request) -> set[int]:
    """In depth order, each dropped layer's nearest survivor after it that nothing else tunes; where
    there is none, the nearest before it."""
    tune: set[int] = set()
    for layer in sorted(drop):
        for neighbour in [*range(layer + 1, scores.n_layers), *range(layer - 1, -1, -1)]:
            if neighbour not in {*drop} | tune | request.tuned_before:
                tune.add(neighbour)
                break
    return tune


def in_groups(
    scores: Scores,
    request: Request,
    by_span: Callable[[Scores, int], ByLayer],
    layer: ByLayer,
    spans: tuple[int, ...] = (3, 2),
) -> Answer:
    """Disjoint groups of one length after another, greatest score first; of a group's first two
    layers the more redundant goes and the other is tuned."""
    policy = request.options.shortfall
    unassigned = set(request.free)
    drop: list[int] = []
    tune: set[int] = set()
    for span in spans if policy == "pairs" else spans[:1]:
        values = by_span(scores, span)
        for first in greatest_first(values, values):
            group = set(range(first, first + span))
            if len(drop) < request.drops and group <= unassigned:
                unassigned -= group
                second_goes = layer[first] < layer[first + 1]
                drop.append(first + 1 if second_goes else first)
                tune.add(first if second_goes else first + 1)
    if len(drop) < request.drops and policy != "fewer":
        return Answer([], set(), refused_at=len(drop))
    return Answer(drop, tune)


def interlace(scores: Scores, request: Request) -> Answer:
    return in_groups(scores, request, of_span, of_span(scores))


def interlace_oa(scores: Scores, request: Request) -> Answer:
    alike = dict.fromkeys(range(scores.n_layers), 0.0)  # of equals the first goes
    return in_groups(scores, request, of_span, alike)


def interlace_tn(scores: Scores, request: Request) -> Answer:
    alike = dict.fromkeys(range(scores.n_layers), 0.0)
    layer = of_span(scores)
    by_first = {first: layer[first] for first in range(scores.n_layers - 1) if first in layer}
    return in_groups(scores, request, lambda *_: by_first, alike, spans=(2,))


def interlace_pooled(scores: Scores, request: Request) -> Answer:
    layer = of_span(scores, criterion="pooled")

    def means(scores: Scores, span: int) -> ByLayer:
        starts = [i for i in layer if {*range(i, i + span)} <= layer.keys()]
        return {first: (layer[first] + layer[first + 1]) / 2 for first in starts}

    return in_groups(scores, request, means, layer)


def interlace_optimal(scores: Scores, request: Request) -> Answer:
    triplet, pair, layer = (of_span(scores, span) for span in (3, 2, 1))
    free, policy = set(request.free) & layer.keys(), request.options.shortfall
    groups = slow_optimal.best(triplet, pair, free, request.drops, policy)
    if isinstance(groups, int):
        return Answer([], set(), refused_at=groups)
    roles = [(i + 1, i) if layer[i] < layer[i + 1] else (i, i + 1) for i, _ in groups]
    return Answer([drop for drop, _ in roles], {tune for _, tune in roles})


def runs_of(length: int, free: frozenset[int]) -> list[range]:
    runs = [range(first, first + length) for first in sorted(free)]
    return [run for run in runs if {*run} <= free]


def in_a_row(
    free: frozenset[int], scores: Scores, request: Request, best: Callable[[list[range]], range]
) -> Answer:
    """A run of K neighbours that may go, or the longest where the policy makes do with fewer."""
    longest = max((n for n in range(1, len(free) + 1) if runs_of(n, free)), default=0)
    if longest < request.drops and request.options.shortfall != "fewer":
        return Answer([], set(), refused_at=longest)
    runs = runs_of(min(request.drops, longest), free)
    drop = list(best(runs)) if longest else []
    return Answer(drop, neighbours(drop, scores, request))


def consecutive(scores: Scores, request: Request) -> Answer:
    """The run that starts at the greatest S_1, moved down until all of it may go; where none below
    may, the lowest."""
    layer = of_span(scores)
    free = frozenset(layer) & request.free

    def best(runs: list[range]) -> range:
        start = greatest_first(layer, free)[0]
        return [run for run in runs if run[0] <= start or run == runs[0]][-1]

    return in_a_row(free, scores, request, best)


def angular_block(scores: Scores, request: Request) -> Answer:
    def best(runs: list[range]) -> range:
        return min(runs, key=lambda run: scores.values["angular", run[0], len(run)])

    free = frozenset(of_span(scores, criterion="angular")) & request.free
    return in_a_row(free, scores, request, best)


def dense_ft(scores: Scores, request: Request) -> Answer:
    return Answer([], set(range(scores.n_layers - request.drops, scores.n_layers)))


def ranked(scores: Scores, request: Request, values: ByLayer) -> Answer:
    """The first K of a ranking; K can be no greater than the layers that may go."""
    if request.drops > len(values) and request.options.shortfall != "fewer":
        return Answer([], set(), refused_at=len(values))
    drop = greatest_first(values, values)[: request.drops]
    return Answer(drop, neighbours(drop, scores, request))


def greatest(criterion: str, sign: int = 1) -> Callable[[Scores, Request], Answer]:
    """A ranking by one criterion; with a sign of -1, the least values first."""

    def answer(scores: Scores, request: Request) -> Answer:
        by_layer = of_span(scores, criterion=criterion)
        values = {i: sign * by_layer[i] for i in request.free if i in by_layer}
        return ranked(scores, request, values)

    return answer


def search(scores: Scores, request: Request) -> Answer:
    """The set of K layers, as it was measured."""
    drops, most = request.drops, len(request.free)
    if drops > most and request.options.shortfall != "fewer":
        return Answer([], set(), refused_at=most)
    drop = sorted(of_span(scores, criterion=f"search/{min(drops, most)}"))
    return Answer(drop, neighbours(drop, scores, request))


def mixed(scores: Scores, request: Request) -> Answer:
    """By `alpha * Snon + (1 - alpha) * Smath` of z-scores over the free layers (eq. 8, 9)."""

    def z_scores(criterion: str) -> ByLayer:
        by_layer = of_span(scores, criterion=criterion)
        values = {i: by_layer[i] for i in request.free if i in by_layer}
        mean = statistics.fmean(values.values() or [0.0])
        deviation = statistics.pstdev(values.values() or [0.0]) or 1.0
        return {i: (value - mean) / deviation for i, value in values.items()}

    math, nonmath, alpha = (
        z_scores("cosine/math"),
        z_scores("cosine/nonmath"),
        request.options.alpha,
    )
    ranking = {i: alpha * nonmath[i] + (1 - alpha) * math[i] for i in math}
    return ranked(scores, request, {i: round(value, 9) for i, value in ranking.items()})


ANSWERS: dict[str, Callable[[Scores, Request], Answer]] = {
    "interlace": interlace,
    "interlace-optimal": interlace_optimal,
    "interlace-oa": interlace_oa,
    "interlace-tn": interlace_tn,
    "consecutive": consecutive,
    "dense-ft": dense_ft,
    "math-aware": greatest("cosine/math"),
    "nonmath-aware": greatest("cosine/nonmath"),
    "mixed": mixed,
    "cka": greatest("cka"),
    "interlace-pooled": interlace_pooled,
    "shortgpt": greatest("cosine"),
    "angular-block": angular_block,
    "sleb": greatest("sleb", -1),
    "search": search,
    "taylor": greatest("taylor", -1),
}
