"""The exact best set of disjoint triplets, where INTERLACE takes them greedily."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from interlace.methods.choice import Choice, Request
from interlace.methods.interlace import group, more_redundant, ran_out
from interlace.scores.table import Scores

Chain = tuple[tuple[int, int], "Chain"] | None  # (first, span) of a group, then the next ones
Best = tuple[Fraction, Chain]  # sum of scores, groups


def interlace_optimal(scores: Scores, request: Request) -> Choice:
    """Drop from the K disjoint triplets with the greatest sum of `S_3`; roles as in INTERLACE.

    Where K triplets do not fit, the policy decides: `pairs` takes as many triplets as
    leave room for pairs, K groups in all, with the greatest sum of `S_3` and `S_2`; `fewer` takes
    as many triplets as fit; `error` refuses. Of sets with the same sum, the one whose first
    difference lies lower is taken.

    Raises:
        InputError: K groups do not fit; names the largest K that does.
    """
    layer = scores.of_span(1)
    triplet = {i: v for i, v in scores.of_span(3).items() if {i, i + 1, i + 2} <= request.free}
    pair: Mapping[int, float] = {}
    sets = best_sets(triplet, pair, request.drops)
    spans: tuple[int, ...] = (3,)
    if max(map(sum, sets)) < request.drops and request.options.shortfall == "pairs":
        pair = {i: v for i, v in scores.of_span(2).items() if {i, i + 1} <= request.free}
        sets = best_sets(triplet, pair, request.drops)
        spans = (3, 2)
    feasible = max(map(sum, sets))
    if feasible < request.drops and request.options.shortfall != "fewer":
        raise ran_out(request, feasible, spans)
    _, chain = sets[max(counts for counts in sets if sum(counts) == feasible)]  # most triplets
    values = {3: triplet, 2: pair}
    groups = []
    while chain:
        (first, span), chain = chain
        groups.append(group(first, span, values[span][first], layer, more_redundant))
    return Choice.of_groups(sorted(groups, key=lambda g: (-g.span, -(g.score or 0), g.first)))


def best_sets(
    triplet: Mapping[int, float], pair: Mapping[int, float], limit: int
) -> dict[tuple[int, int], Best]:
    """Find the set with the greatest sum for each number of disjoint triplets and pairs that fit.

    A dynamic program from the last layer down: at each layer, either nothing begins there, or one
    of the groups does. Sums are exact, so equal sums are seen as equal.

    Args:
        triplet: `S_3` by first layer, of those allowed.
        pair: `S_2` by first layer, of those allowed.
        limit: groups to take at most.

    Returns:
        By (triplets, pairs): the sum, and the groups by depth as a linked list.
    """
    end = max((*triplet, *pair), default=-1) + 1
    nothing: dict[tuple[int, int], Best] = {(0, 0): (Fraction(0), None)}
    best_from = [nothing] * (end + 3)  # best_from[i]: the best sets within layers i and up
    for layer in range(end - 1, -1, -1):
        best = dict(best_from[layer + 1])
        for span, scores in ((2, pair), (3, triplet)):
            if layer not in scores:
                continue
            value = Fraction(scores[layer])
            for (triplets, pairs), (total, groups) in best_from[layer + span].items():
                if triplets + pairs == limit:
                    continue
                counts = (triplets + 1, pairs) if span == 3 else (triplets, pairs + 1)
                previous = best.get(counts)
                if previous is None or total + value >= previous[0]:  # of equals, what begins here
                    best[counts] = (total + value, ((layer, span), groups))
        best_from[layer] = best
    return best_from[0]
