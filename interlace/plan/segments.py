"""Which stretch of the dense decoder the tuned layers beside dropped ones are to stand for.

Local healing gives the survivors of every segment a problem of their own: map the dense input of
the segment to its dense output. Choosing segments is arithmetic on a plan.
"""

from __future__ import annotations

from dataclasses import dataclass

from interlace.plan.record import Plan


@dataclass(frozen=True)
class Segment:
    """Neighbouring dense layers, and those of them that are to do the work of all.

    Attributes:
        survivors: the tuned layers, in depth order; all others of the segment are dropped.
        first: first dense layer of the segment.
        last: last dense layer of the segment.
    """

    survivors: tuple[int, ...]
    first: int
    last: int


def segments(plan: Plan) -> list[Segment]:
    """The segments of a plan, in depth order; no two share a layer.

    A run of n dropped layers is repaired by tuned layers directly beside it: those that its groups
    name; where they name none, up to n tuned ones in a row behind it; where there is none, before
    it. The run and these layers are a segment, and so are several runs with a survivor between
    them. INTERLACE's pairs (drop i, tune i+1 or drop i+1, tune i) are segments of two. A tuned
    layer that repairs nothing has no segment: on the dense path it is right as it is.
    """
    stretches: list[tuple[set[int], set[int]]] = []  # layers, and which of them repair
    for run in runs(plan):
        tuned = _repairers(run, plan)
        if not tuned:
            continue
        layers = set(run) | tuned
        if stretches and stretches[-1][0] & layers:  # a layer between two runs repairs both
            layers |= stretches[-1][0]
            tuned |= stretches.pop()[1]
        stretches.append((layers, tuned))
    return [Segment(tuple(sorted(tuned)), min(layers), max(layers)) for layers, tuned in stretches]


def unrepaired(plan: Plan) -> list[int]:
    """Dropped layers that no segment holds: no tuned layer lies beside their run."""
    held = {layer for s in segments(plan) for layer in range(s.first, s.last + 1)}
    return [layer for layer in plan.drop if layer not in held]


def runs(plan: Plan) -> list[list[int]]:
    """Maximal runs of dropped layers, in order."""
    found: list[list[int]] = []
    for layer in plan.drop:
        if found and found[-1][-1] == layer - 1:
            found[-1].append(layer)
        else:
            found.append([layer])
    return found


def _repairers(run: list[int], plan: Plan) -> set[int]:
    behind = _in_a_row(run[-1] + 1, 1, len(run), plan)
    before = _in_a_row(run[0] - 1, -1, len(run), plan)
    named = {layer for g in plan.groups if set(g.drop) & set(run) for layer in g.tune}
    return named & (behind | before) or behind or before


def _in_a_row(start: int, step: int, most: int, plan: Plan) -> set[int]:
    """Up to so many tuned layers from one on, as far as they are neighbours."""
    found: set[int] = set()
    layer = start
    while layer in plan.tune and len(found) < most:
        found.add(layer)
        layer += step
    return found
