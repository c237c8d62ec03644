"""What each survivor of local healing gets and must give, from one dense forward pass.

B is the rows of a batch, T the tokens of the longest, d the hidden width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from interlace.families import decoder_layers
from interlace.plan import Plan
from interlace.segments import Segment, segments


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
        position: of the survivor in the pruned decoder.
        input_signs: +1 or -1 by the dense layer that features enter in front of.
        target_signs: the same for the segment's output.
    """

    segment: Segment
    position: int
    input_signs: Mapping[int, int]
    target_signs: Mapping[int, int]


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

    return [
        Task(s, p, signs(s.first, p), signs(s.last, p))
        for s in segments(plan)
        for p in (keep.index(s.survivor),)
    ]


@contextmanager
def recorded(model: nn.Module, jobs: Sequence[Task]) -> Iterator[States]:
    """Record what the tasks read of the decoder while the block runs, and nothing else."""
    features = {e for job in jobs for e in (*job.input_signs, *job.target_signs)}
    inputs = {job.segment.first for job in jobs} | features
    outputs = {job.segment.last for job in jobs} | {e - 1 for e in features}
    calls = {job.segment.survivor for job in jobs}
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


def pair(job: Task, states: States) -> tuple[Tensor, Tensor]:
    """A survivor's input and target, [B, T, d] each."""

    def moved(state: Tensor, signs: Mapping[int, int]) -> Tensor:
        for e, sign in signs.items():
            state = state + sign * (states.inputs[e] - states.outputs[e - 1])
        return state

    given = moved(states.inputs[job.segment.first], job.input_signs)
    return given, moved(states.outputs[job.segment.last], job.target_signs)
