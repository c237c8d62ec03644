"""INTERLACE (arXiv 2511.19676): of each chosen triplet one goes, one is tuned, one anchors."""

from __future__ import annotations

from interlace.errors import InputError
from interlace.methods.choice import Choice, Group, Request
from interlace.scores import Scores


def disjoint_spans(scores: dict[int, float], span: int, free: set[int], most: int) -> list[int]:
    """Take spans greedily, most redundant first, ties by lower index, none sharing a layer.

    Args:
        scores: `S_span` by first layer.
        span: layers per span.
        free: layers not assigned yet.
        most: how many spans to take at most.

    Returns:
        First layers of the spans taken, in the order taken.
    """
    left = set(free)
    taken: list[int] = []
    for first in sorted(scores, key=lambda i: (-scores[i], i)):
        if len(taken) == most:
            break
        layers = set(range(first, first + span))
        if layers <= left:
            left -= layers
            taken.append(first)
    return taken


def interlace(scores: Scores, request: Request) -> Choice:
    """Triplets by `S_3`; in each the more redundant of the first two goes, the other is tuned.

    When triplets run out before K drops, `request.shortfall` decides: `pairs` goes on with disjoint
    pairs by `S_2` (same rule, no anchor), `fewer` stops short, `error` refuses.

    Raises:
        InputError: K drops are not to be had under the given policy; names the largest K that is.
    """
    layer = scores.of_span(1)
    groups: list[Group] = []
    kinds = [("triplet", 3), ("pair", 2)] if request.shortfall == "pairs" else [("triplet", 3)]
    for kind, span in kinds:
        taken = {i for group in groups for i in range(group.first, group.first + group.span)}
        wanted = request.drops - len(groups)
        if not wanted:
            break
        by_span = scores.of_span(span)
        for first in disjoint_spans(by_span, span, set(request.free - taken), wanted):
            groups.append(_group(kind, first, span, by_span[first], layer))
    if len(groups) < request.drops and request.shortfall != "fewer":
        raise InputError(
            f"{request.drops} layers cannot be dropped: disjoint triplets"
            f"{' and pairs' if request.shortfall == 'pairs' else ''} run out at {len(groups)};"
            f" the largest feasible K is {len(groups)}: lower ratio, protect fewer layers, or set"
            " select.shortfall to fewer"
        )
    return Choice.of_groups(groups)


def _group(kind: str, first: int, span: int, value: float, layer: dict[int, float]) -> Group:
    second = first + 1
    drop, tune = (second, first) if layer[first] < layer[second] else (first, second)
    return Group(
        kind="triplet" if kind == "triplet" else "pair",
        first=first,
        span=span,
        score=value,
        layer_scores=(layer[first], layer[second]),
        drop=(drop,),
        tune=(tune,),
        anchor=first + 2 if span == 3 else None,
    )
