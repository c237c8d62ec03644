"""Systematic sampling: how many rows of each row group are drawn, and which ones.

Parquet is read by the row group, so rows drawn one by one would read nearly everything. The rows of
a subset stand in one fixed order, and a draw is the beginning of it: a larger one contains every
smaller one. Row groups are visited from a random start in steps of the golden ratio, so that any
beginning of the visit is spread evenly over the subset and every group is as likely to be in it
(systematic sampling, Cochran 1977, chapter 8). Each visit draws the next `share` of the group's
rows in random order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from interlace.samples.order import shuffle_key

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio
_TURN = 2**64


def rows_to_draw(total: int, fraction: float) -> int:
    """Return a fraction of the rows, rounded up, so that every subset gives at least one."""
    return min(total, math.ceil(fraction * total - 1e-9))


def visit_order(groups: int, start: int) -> Iterator[int]:
    """Yield every number below `groups` once; any first k of them are spread evenly.

    Args:
        groups: to visit.
        start: a random number below 2**64.
    """
    visited: set[int] = set()
    position = start
    while len(visited) < groups:
        group = position * groups // _TURN
        if group not in visited:
            visited.add(group)
            yield group
        position = (position + _GOLDEN) % _TURN


def rows_per_group(sizes: Sequence[int], rows: int, *, share: float, start: int) -> dict[int, int]:
    """Allocate the rows to draw to row groups.

    Args:
        sizes: rows of every group.
        rows: to draw; at most the sum of `sizes`.
        share: of a group's rows, drawn in one visit; bytes read over bytes kept come to about
            1 / share while every group is visited at most once.
        start: of the first visit, below 2**64.

    Returns:
        Rows by group, without groups that give none.
    """
    if rows >= sum(sizes):
        return {group: size for group, size in enumerate(sizes) if size}
    rows_of: dict[int, int] = {}
    missing, order = rows, []
    for group in visit_order(len(sizes), start):
        if missing <= 0:
            return rows_of
        order.append(group)
        missing -= _visit(rows_of, sizes, group, share, missing)
    while missing > 0:
        for group in order:
            missing -= _visit(rows_of, sizes, group, share, missing)
    return rows_of


def _visit(
    rows_of: dict[int, int], sizes: Sequence[int], group: int, share: float, missing: int
) -> int:
    """Add the next share of a group's rows; return how many were added."""
    earlier = rows_of.get(group, 0)
    rows = min(math.ceil(share * sizes[group] - 1e-9), sizes[group] - earlier, missing)
    if rows > 0:
        rows_of[group] = earlier + rows
    return max(rows, 0)


def rows_in_group(size: int, count: int, seed: int, *key: object) -> list[int]:
    """Draw rows of one group: those with the lowest shuffle keys, in their order.

    Args:
        size: rows of the group.
        count: rows to draw.
        seed: of the draw.
        key: names the group.
    """
    if count >= size:
        return list(range(size))
    return sorted(sorted(range(size), key=lambda row: shuffle_key(seed, *key, row))[:count])
