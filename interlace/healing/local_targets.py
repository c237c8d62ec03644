"""What each segment of local healing gets and must give, from one dense forward pass.

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
    """A segment, and the visual features that tell the pruned model's states from the dense ones.

    Features enter in front of layers; the pruned model may have entered more or fewer of them than
    the dense one when it reaches the segment. Each is in the state once, where the pruned model
    puts it.

    Attributes:
        segment: which layers.
        positions: of its survivors in the pruned decoder.
        input_signs: +1 or -1 by the dense layer that features enter in front of.
        target_signs: the same for the segment's output.
        between: for each survivor but the first, dense layers whose features enter between the
            survivor before and it.
    """

    segment: Segment
    positions: tuple[int, ...]
    input_signs: Mapping[int, int]
    target_signs: Mapping[int, int]
    between: tuple[tuple[int, ...], ...]


def segment_targets(plan: Plan, by_position: bool) -> list[SegmentTarget]:
    """The segments of a plan with the visual features that they must reckon with.

    Args:
        plan: its `deepstack_layers` is the last layer that features enter in front of.
        by_position: features keep their position (DeepStack), rather than move with the layers.
    """
    keep = plan.keep
    entries = range(1, plan.deepstack_layers + 1)
    places = {e: e if by_position else sum(layer < e for layer in keep) for e in entries}

    def signs(layer: int, position: int) -> dict[int, int]:
        by_now = {e: int(places[e] <= position) - int(e <= layer) for e in entries}
        return {e: sign for e, sign in by_now.items() if sign}

    def between(positions: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        steps = pairwise(positions)
        return tuple(tuple(e for e in entries if a < places[e] <= b) for a, b in steps)

    return [
        SegmentTarget(s, at, signs(s.first, at[0]), signs(s.last, at[-1]), between(at))
        for s in segments(plan)
        for at in (tuple(keep.index(layer) for layer in s.survivors),)
    ]


def recorded_for(
    targets: Sequence[SegmentTarget], model: nn.Module
) -> AbstractContextManager[Recording]:
    """Record what the tasks read of the decoder while the block runs, and nothing else."""
    features = {e for target in targets for e in (*target.input_signs, *target.target_signs)}
    features |= {e for target in targets for entering in target.between for e in entering}
    return recorded(
        model,
        inputs={target.segment.first for target in targets} | features,
        outputs={target.segment.last for target in targets} | {e - 1 for e in features},
        arguments={layer for target in targets for layer in target.segment.survivors},
    )


def visual_features(states: Recording, layer: int) -> Tensor:
    """The visual features that enter in front of a dense layer, [B, T, d]; 0 at text."""
    return states.inputs[layer] - states.outputs[layer - 1]


def pair(target: SegmentTarget, states: Recording) -> tuple[Tensor, Tensor]:
    """A segment's input and target, [B, T, d] each."""

    def moved(state: Tensor, signs: Mapping[int, int]) -> Tensor:
        for e, sign in signs.items():
            state = state + sign * visual_features(states, e)
        return state

    given = moved(states.inputs[target.segment.first], target.input_signs)
    return given, moved(states.outputs[target.segment.last], target.target_signs)
