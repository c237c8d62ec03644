"""What each segment of local healing gets and must give, from one dense forward pass.

B is the rows of a batch, T the tokens of the longest, d the hidden width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from interlace.model.bypass import decoder_layers
from interlace.plan.record import Plan
from interlace.plan.segments import Segment, segments


@dataclass
class States:
    """What one dense forward pass leaves behind, by dense layer; tensors are [B, T, d].

    Attributes:
        inputs: true inputs.
        outputs: true outputs.
        calls: what else a layer is called with, positional and by name.
    """

    inputs: dict[int, Tensor]
    outputs: dict[int, Tensor]
    calls: dict[int, tuple[tuple[Any, ...], dict[str, Any]]]


@dataclass(frozen=True)
class Task:
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


def tasks(plan: Plan, by_position: bool) -> list[Task]:
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
        Task(s, at, signs(s.first, at[0]), signs(s.last, at[-1]), between(at))
        for s in segments(plan)
        for at in (tuple(keep.index(layer) for layer in s.survivors),)
    ]


@contextmanager
def recorded(model: nn.Module, jobs: Sequence[Task]) -> Iterator[States]:
    """Record what the tasks read of the decoder while the block runs, and nothing else."""
    features = {e for job in jobs for e in (*job.input_signs, *job.target_signs)}
    features |= {e for job in jobs for entering in job.between for e in entering}
    inputs = {job.segment.first for job in jobs} | features
    outputs = {job.segment.last for job in jobs} | {e - 1 for e in features}
    calls = {layer for job in jobs for layer in job.segment.survivors}
    states = States({}, {}, {})

    def before(i: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if i in inputs:
                states.inputs[i] = args[0] if args else kwargs["hidden_states"]
            if i in calls:
                others = {k: v for k, v in kwargs.items() if k != "hidden_states"}
                states.calls[i] = (args[1:], others)

        return hook

    def after(i: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            states.outputs[i] = output[0] if isinstance(output, tuple) else output

        return hook

    layers = decoder_layers(model)
    handles = [
        layers[i].register_forward_pre_hook(before(i), with_kwargs=True)
        for i in sorted(inputs | calls)
    ]
    handles += [layers[i].register_forward_hook(after(i)) for i in sorted(outputs)]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def visual_features(states: States, layer: int) -> Tensor:
    """The visual features that enter in front of a dense layer, [B, T, d]; 0 at text."""
    return states.inputs[layer] - states.outputs[layer - 1]


def pair(job: Task, states: States) -> tuple[Tensor, Tensor]:
    """A segment's input and target, [B, T, d] each."""

    def moved(state: Tensor, signs: Mapping[int, int]) -> Tensor:
        for e, sign in signs.items():
            state = state + sign * visual_features(states, e)
        return state

    given = moved(states.inputs[job.segment.first], job.input_signs)
    return given, moved(states.outputs[job.segment.last], job.target_signs)
