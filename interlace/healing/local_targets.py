"""Inputs and targets of the segments of local healing, from one dense forward pass.

B is the rows of a batch, T the tokens of the longest, d the hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from interlace.model.states import Recording, recorded
from interlace.plan.record import Plan
from interlace.plan.segments import Segment, segments


@dataclass(frozen=True)
class SegmentTarget:
    """A segment, and the visual features by which the pruned model's states differ from the dense.

    Features are added before layers. Where the segment begins, the pruned model may have added more
    or fewer of them than the dense one. Each is in the state once, where the pruned model adds it.

    Attributes:
        segment: which layers.
        positions: of its survivors in the pruned decoder.
        input_signs: +1 or -1 by the dense layer that features are added before.
        target_signs: the same for the segment's output.
        between: for each survivor but the first, dense layers whose features are added
            between the previous survivor and it.
    """

    segment: Segment
    positions: tuple[int, ...]
    input_signs: Mapping[int, int]
    target_signs: Mapping[int, int]
    between: tuple[tuple[int, ...], ...]


def segment_targets(plan: Plan, by_position: bool) -> list[SegmentTarget]:
    """Return the segments of a plan, with the visual features to add or subtract.

    Args:
        plan: its `deepstack_layers` is the last layer that features are added before.
        by_position: features keep their position (DeepStack), rather than move with the layers.
    """
    keep = plan.keep
    entries = range(1, plan.deepstack_layers + 1)
    positions_by_entry = {
        e: e if by_position else sum(layer < e for layer in keep) for e in entries
    }

    def signs(layer: int, position: int) -> dict[int, int]:
        sign_by_entry = {
            e: int(positions_by_entry[e] <= position) - int(e <= layer) for e in entries
        }
        return {e: sign for e, sign in sign_by_entry.items() if sign}

    def between(positions: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        steps = pairwise(positions)
        return tuple(tuple(e for e in entries if a < positions_by_entry[e] <= b) for a, b in steps)

    return [
        SegmentTarget(s, at, signs(s.first, at[0]), signs(s.last, at[-1]), between(at))
        for s in segments(plan)
        for at in (tuple(keep.index(layer) for layer in s.survivors),)
    ]


def recorded_for(
    targets: Sequence[SegmentTarget], model: nn.Module
) -> AbstractContextManager[Recording]:
    """Record only the states that the targets need while the block runs."""
    features = {e for target in targets for e in (*target.input_signs, *target.target_signs)}
    features |= {e for target in targets for entering in target.between for e in entering}
    return recorded(
        model,
        inputs={target.segment.first for target in targets} | features,
        outputs={target.segment.last for target in targets} | {e - 1 for e in features},
        arguments={layer for target in targets for layer in target.segment.survivors},
    )


def visual_features(states: Recording, layer: int) -> Tensor:
    """Return the visual features added before a dense layer, [B, T, d]; 0 at text tokens."""
    return states.inputs[layer] - states.outputs[layer - 1]


def pair(target: SegmentTarget, states: Recording) -> tuple[Tensor, Tensor]:
    """Return a segment's input and target, [B, T, d] each."""

    def moved(state: Tensor, signs: Mapping[int, int]) -> Tensor:
        for e, sign in signs.items():
            state = state + sign * visual_features(states, e)
        return state

    start = moved(states.inputs[target.segment.first], target.input_signs)
    return start, moved(states.outputs[target.segment.last], target.target_signs)
