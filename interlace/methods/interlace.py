"""INTERLACE's choice of layers, and two ablations of it (arXiv 2511.19676, section 3, table 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

from interlace.errors import InputError
from interlace.methods.choice import Choice, Method, Request
from interlace.plan.record import Group
from interlace.scores.table import Scores

SpanScores = Callable[[int], Mapping[int, float]]  # span -> score by first layer
Rule = Callable[[float, float], bool]  # S_1 of the first two layers -> the second goes
NAMES: dict[int, Literal["triplet", "pair"]] = {3: "triplet", 2: "pair"}


def more_redundant(first: float, second: float) -> bool:
    """Say whether the second of two layers is the more redundant; of equals the first goes."""
    return first < second


def always_first(first: float, second: float) -> bool:
    """Keep the second of two layers, whatever the scores."""
    return False


def disjoint_spans(scores: Mapping[int, float], span: int, free: set[int], limit: int) -> list[int]:
    """Greedily take spans by score, none sharing a layer.

    Args:
        scores: `S_span` by first layer.
        span: layers per span.
        free: layers not assigned yet.
        limit: how many spans to take at most.

    Returns:
        First layers of the spans, in the order in which they were taken.
    """
    unassigned = set(free)
    first_layers: list[int] = []
    for first in sorted(scores, key=lambda i: (-scores[i], i)):
        if len(first_layers) == limit:
            break
        layers = set(range(first, first + span))
        if layers <= unassigned:
            unassigned -= layers
            first_layers.append(first)
    return first_layers


def group(first: int, span: int, value: float, layer: Mapping[int, float], rule: Rule) -> Group:
    """Return a triplet or pair: of its first two layers one goes, one is tuned; a third anchors.

    A second layer without a score, the last one in mode `reference`, does not go.
    """
    second = first + 1
    second_goes = rule(layer[first], layer.get(second, -math.inf))
    drop, tune = (second, first) if second_goes else (first, second)
    return Group(
        kind=NAMES[span],
        layers=tuple(range(first, first + span)),
        score=value,
        layer_scores=tuple(layer[i] for i in (first, second) if i in layer),
        drop=(drop,),
        tune=(tune,),
        anchor=first + 2 if span == 3 else None,
    )


def greedy(
    scores: SpanScores, request: Request, rule: Rule = more_redundant, spans: tuple[int, ...] = (3,)
) -> Choice:
    """Take the best disjoint spans until K layers are gone.

    When they run out, the policy decides: `pairs` goes on with disjoint pairs by `S_2`
    (same rule, no anchor), `fewer` stops short, `error` refuses.

    Args:
        scores: gives the scores of all spans of one length.
        request: K, free layers and the policy.
        rule: which of the first two layers goes.
        spans: lengths of the method's own groups.

    Raises:
        InputError: K drops are not feasible under the policy; names the largest K that is.
    """
    layer = scores(1)
    groups: list[Group] = []
    if request.options.shortfall == "pairs":
        spans = (*spans, 2)
    for span in dict.fromkeys(spans):
        assigned = {i for triplet in groups for i in triplet.layers}
        missing = request.drops - len(groups)
        if not missing:
            break
        by_span = scores(span)
        for first in disjoint_spans(by_span, span, set(request.free - assigned), missing):
            groups.append(group(first, span, by_span[first], layer, rule))
    if len(groups) < request.drops and request.options.shortfall != "fewer":
        raise ran_out(request, len(groups), spans)
    return Choice.of_groups(groups)


def ran_out(request: Request, feasible: int, spans: tuple[int, ...]) -> InputError:
    """Return the error for a K that disjoint groups cannot reach."""
    kinds = " and ".join(f"{NAMES[span]}s" for span in dict.fromkeys(spans))
    return InputError(
        f"{request.drops} layers cannot be dropped: disjoint {kinds} run out at {feasible}; the"
        f" largest feasible K is {feasible}: lower ratio, protect fewer layers, or set"
        " select.shortfall to fewer"
    )


def interlace(scores: Scores, request: Request) -> Choice:
    """Take triplets by `S_3`; of the first two layers the more redundant goes, one is tuned."""
    return greedy(scores.of_span, request)


INTERLACE = Method(interlace, periods="span")


def interlace_oa(scores: Scores, request: Request) -> Choice:
    """Take triplets by `S_3`; in each the first layer goes and the second is tuned."""
    return greedy(scores.of_span, request, always_first)


def interlace_tn(scores: Scores, request: Request) -> Choice:
    """Take the greatest `S_1` first: the layer goes and the next one is tuned; no anchor.

    Its groups are pairs already, by the `S_1` of the first layer: there are no other pairs to fall
    back on. The tuned layer needs no score, so in mode `reference` it may be the last one.
    """
    layer = scores.of_span(1)
    by_first = {i: layer[i] for i in layer if i + 1 < scores.n_layers}
    return greedy(lambda span: layer if span == 1 else by_first, request, always_first, spans=(2,))
