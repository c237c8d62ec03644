"""Losses on answers of a model without sets of layers, which share the states they have in common.

Shapes: B samples, T padded tokens, d the decoder's width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from interlace.model.answer_loss import answer_loss
from interlace.model.bypass import bypassed
from interlace.model.chat import Inputs
from interlace.model.decoder import decoder_layers, norm_and_head
from interlace.model.paths import Layers, common_length, layer_runs, survivors
from interlace.model.states import forward, recorded, skipped, state_before


@dataclass
class SharedStates:
    """States of one batch after the first layers of paths, kept from one call to the next.

    Attributes:
        limit: most bytes to keep.
        states: by the layers run so far, [B, T, d] each.
    """

    limit: int
    states: dict[Layers, Tensor] = field(default_factory=dict)

    def longest(self, path: Layers) -> int:
        """Return the length of the longest beginning of a path whose state is kept, or 0."""
        lengths = range(len(path), 0, -1)
        return next((length for length in lengths if path[:length] in self.states), 0)

    def add(self, beginning: Layers, state: Tensor, depth_step: int) -> None:
        """Keep a state after a multiple of some depth, if there is room."""
        if len(beginning) % depth_step == 0 and state.nbytes * (len(self.states) + 1) < self.limit:
            self.states[beginning] = state

    def forget(self, layer: int) -> None:
        """Drop the states that a layer contributed to, once it is removed for good."""
        self.states = {run: state for run, state in self.states.items() if layer not in run}


def losses_without(
    model: nn.Module,
    batch: Inputs,
    drops: Sequence[Layers],
    deepstack_layers: int,
    shared_states: SharedStates | None = None,
) -> list[float]:
    """Return the loss of the model without each of some sets of layers.

    Sets that keep the same first layers share the states after these: they are computed once, on
    the same bits as in a pass of one set alone. Where visual features are added after the first
    positions, a bypass there moves them to other layers, and the set has a pass of its own.

    Args:
        model: the model; it is unchanged afterwards.
        batch: inputs and labels.
        drops: sets of positions to bypass.
        deepstack_layers: leading positions after which visual features are added.
        shared_states: of the same batch and model, from earlier calls and for later ones.

    Returns:
        Sums over the answer tokens of the batch, in the order of `drops`.
    """
    n_layers, norm = len(decoder_layers(model)), norm_and_head(model)[0]
    paths = [survivors(n_layers, drop) for drop in drops]
    early = tuple(range(min(deepstack_layers, n_layers)))
    sharing = sorted({path for path in paths if path[: len(early)] == early})
    losses = {}
    with torch.inference_mode():
        for path in set(paths) - set(sharing):
            with bypassed(model, survivors(n_layers, path)):
                losses[path] = answer_loss(model, state_before(model, batch, norm), batch["labels"])
        for path, state in _outputs(model, batch, sharing, shared_states or SharedStates(0)):
            losses[path] = answer_loss(model, state, batch["labels"])
    return [losses[path] for path in paths]


def _outputs(
    model: nn.Module, batch: Inputs, paths: Sequence[Layers], cache: SharedStates
) -> Iterator[tuple[Layers, Tensor]]:
    """Run the layers of sorted paths, those of a shared beginning once.

    Yields:
        Path, and the output of its last layer, [B, T, d].
    """
    if not paths:
        return
    layers = decoder_layers(model)
    every = tuple(range(len(layers)))
    shared = min(len(layers) - 1, *(common_length(every, path) for path in paths))
    recorder = recorded(model, inputs=[shared], arguments=every)
    with recorder as recording, skipped(layers[shared:]):
        forward(model, batch)
    states, last = {shared: recording.inputs[shared]}, every[:shared]  # by depth
    depth_step = _depth_step(states[shared], len(layers), paths, cache.limit)
    for number, path in enumerate(paths):
        common, cached = common_length(last, path), cache.longest(path) if number else 0
        states = {depth: state for depth, state in states.items() if depth <= common}
        if cached > common:
            states[cached] = cache.states[path[:cached]]
        for depth in range(max(states), len(path)):
            arguments = recording.arguments[path[depth]]
            states[depth + 1] = arguments.output(layers[path[depth]], states[depth])
            if number and depth >= common:
                cache.add(path[: depth + 1], states[depth + 1], depth_step)
        yield path, states[len(path)]
        last = path


def _depth_step(state: Tensor, n_layers: int, paths: Sequence[Layers], limit: int) -> int:
    """Return the depths to keep states after: every n-th, so that those of all paths have room."""
    count = layer_runs(n_layers, [survivors(n_layers, path) for path in paths])
    return max(1, math.ceil(count * state.nbytes / max(limit, 1)))
