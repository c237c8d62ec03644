"""Which rows of a subset are drawn: row groups spread over all of it, and a share of each.

Parquet is read by the row group, so rows drawn one by one would read nearly everything. The rows of
a subset stand in one fixed order, and a draw is the beginning of it: a larger one contains every
smaller one. Row groups are visited from a random start in steps of the golden ratio, so that any
beginning of the visit is spread evenly over the subset and every group is as likely to be in it
(systematic sampling, Cochran 1977, chapter 8). Each visit takes the next `share` of the group's
rows in random order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from interlace.samples.order import shuffle_key

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio
_TURN = 2**64


def rows_to_draw(total: int, fraction: float) -> int:
    """How many rows a fraction comes to: rounded up, so that no subset goes without."""
    return min(total, math.ceil(fraction * total - 1e-9))


def visit_order(groups: int, start: int) -> Iterator[int]:
    """Every number below `groups` once; any first k of them are spread evenly.

    Args:
        groups: how many there are.
        start: a random number below 2**64.
    """
    seen: set[int] = set()
    place = start
    while len(seen) < groups:
        number = place * groups // _TURN
        if number not in seen:
            seen.add(number)
            yield number
        place = (place + _GOLDEN) % _TURN


def rows_per_group(
    sizes: Sequence[int], wanted: int, *, share: float, start: int
) -> dict[int, int]:
    """How many rows to take of each row group.

    Args:
        sizes: rows of every group.
        wanted: rows to draw; at most the sum of `sizes`.
        share: of a group's rows, taken in one visit; bytes read over bytes kept come to about
            1 / share while every group is visited at most once.
        start: of the first visit, below 2**64.

    Returns:
        Rows by group, for the groups that any are taken of.
    """
    if wanted >= sum(sizes):
        return {group: size for group, size in enumerate(sizes) if size}
    taken: dict[int, int] = {}
    left, order = wanted, []
    for group in visit_order(len(sizes), start):
        if left <= 0:
            return taken
        order.append(group)
        left -= _take(taken, sizes, group, share, left)
    while left > 0:
        for group in order:
            left -= _take(taken, sizes, group, share, left)
    return taken


def _take(taken: dict[int, int], sizes: Sequence[int], group: int, share: float, left: int) -> int:
    before = taken.get(group, 0)
    rows = min(math.ceil(share * sizes[group] - 1e-9), sizes[group] - before, left)
    if rows > 0:
        taken[group] = before + rows
    return max(rows, 0)


def rows_in_group(size: int, take: int, seed: int, *key: object) -> list[int]:
    """The rows of one group that are taken, in their order: those that rank lowest.

    Args:
        size: rows of the group.
        take: how many to take.
        seed: of the draw.
        key: names the group.
    """
    if take >= size:
        return list(range(size))
    return sorted(sorted(range(size), key=lambda row: shuffle_key(seed, *key, row))[:take])
