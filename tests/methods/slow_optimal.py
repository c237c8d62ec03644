"""The best set of disjoint groups, found by looking at every one."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

Groups = tuple[tuple[int, int], ...]  # (first layer, span) by depth


def every_set(free: set[int], end: int, begin: int = 0) -> Iterator[Groups]:
    """All sets of disjoint triplets and pairs of free layers from `begin` on; lower ones first."""
    if begin >= end:
        yield ()
        return
    for span in (3, 2):
        if all(begin + offset in free for offset in range(span)):
            for rest in every_set(free, end, begin + span):
                yield ((begin, span), *rest)
    yield from every_set(free, end, begin + 1)


def count(groups: Groups, span: int) -> int:
    return sum(length == span for _, length in groups)


def total(groups: Groups, triplet: dict[int, float], pair: dict[int, float]) -> Fraction:
    """Exact: rounding would tell sums apart that are equal."""
    scores = [triplet[first] if span == 3 else pair[first] for first, span in groups]
    return sum(map(Fraction, scores), Fraction(0))


def best(
    triplet: dict[int, float], pair: dict[int, float], free: set[int], drops: int, shortfall: str
) -> Groups | int:
    """K groups; as many of them triplets as leave room for the pairs, then of the greatest sum.

    Without `pairs` only triplets count. Where K do not fit: as many as do under `fewer`, else the
    largest K that fits.
    """
    every = every_set(free, max(free, default=-1) + 1)
    sets = [groups for groups in every if shortfall == "pairs" or count(groups, 2) == 0]
    most = min(drops, max(map(len, sets)))
    if most < drops and shortfall != "fewer":
        return most
    fitting = [groups for groups in sets if len(groups) == most]
    return max(fitting, key=lambda groups: (count(groups, 3), total(groups, triplet, pair)))
