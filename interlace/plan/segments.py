"""Segments of the dense decoder that tuned layers beside dropped ones stand for.

Local healing gives the survivors of every segment a problem of their own: map the dense input of
the segment to its dense output. Choosing segments is arithmetic on a plan.
"""

from __future__ import annotations

from dataclasses import dataclass

from interlace.plan.record import Plan


@dataclass(frozen=True)
class Segment:
    """Neighbouring dense layers, and the survivors that do the work of all of them.

    Attributes:
        survivors: the tuned layers, in depth order; all others of the segment are dropped.
        first: first dense layer of the segment.
        last: last dense layer of the segment.
    """

    survivors: tuple[int, ...]
    first: int
    last: int


def segments(plan: Plan) -> list[Segment]:
    """Return the segments of a plan, in depth order; no two share a layer.

    A run of n dropped layers is repaired by tuned layers directly beside it: those that its groups
    name; where they name none, up to n tuned neighbours after it; where there is none, before it.
    The run and these layers are a segment, and so are several runs with a survivor between them.
    INTERLACE's pairs (drop i, tune i+1 or drop i+1, tune i) are segments of two. A tuned layer that
    repairs nothing has no segment: on the dense path it is right as it is.
    """
    stretches: list[tuple[set[int], set[int]]] = []  # all layers, and those that repair
    for run in dropped_runs(plan):
        survivors = _repairers(run, plan)
        if not survivors:
            continue
        layers = set(run) | survivors
        if stretches and stretches[-1][0] & layers:  # a layer between two runs repairs both
            layers |= stretches[-1][0]
            survivors |= stretches.pop()[1]
        stretches.append((layers, survivors))
    return [
        Segment(tuple(sorted(survivors)), min(layers), max(layers))
        for layers, survivors in stretches
    ]


def dropped_runs(plan: Plan) -> list[list[int]]:
    """Return maximal runs of dropped layers, in order."""
    runs: list[list[int]] = []
    for layer in plan.drop:
        if runs and runs[-1][-1] == layer - 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return runs


def _repairers(run: list[int], plan: Plan) -> set[int]:
    next_layers = _tuned_neighbours(run[-1] + 1, 1, len(run), plan)
    previous_layers = _tuned_neighbours(run[0] - 1, -1, len(run), plan)
    group_layers = {layer for g in plan.groups if set(g.drop) & set(run) for layer in g.tune}
    return group_layers & (next_layers | previous_layers) or next_layers or previous_layers


def _tuned_neighbours(start: int, step: int, limit: int, plan: Plan) -> set[int]:
    """Return up to `limit` tuned layers in a row, from `start` on."""
    layers: set[int] = set()
    layer = start
    while layer in plan.tune and len(layers) < limit:
        layers.add(layer)
        layer += step
    return layers
