"""Paths through the decoder: the layers that stay, and beginnings that are shared. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

Layers = tuple[int, ...]  # positions, sorted


def survivors(n_layers: int, drop: Sequence[int]) -> Layers:
    """Return the positions that stay, sorted."""
    return tuple(layer for layer in range(n_layers) if layer not in drop)


def common_length(first: Layers, second: Layers) -> int:
    """Count the first layers that two paths share."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def layer_runs(n_layers: int, drops: Sequence[Layers]) -> int:
    """Count the runs of layers on the paths without some sets, a shared beginning once.

    Args:
        n_layers: L, of the decoder.
        drops: the sets.
    """
    runs, last = 0, Layers()
    for path in sorted({survivors(n_layers, drop) for drop in drops}):
        runs += len(path) - common_length(last, path)
        last = path
    return runs
