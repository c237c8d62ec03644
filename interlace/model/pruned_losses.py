"""Losses on answers of a model without sets of layers, which share the states they have in common.

Shapes: B samples, T padded tokens, d the decoder's width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from interlace.model.answer_loss import answer_loss
from interlace.model.bypass import bypassed
from interlace.model.chat import Inputs
from interlace.model.decoder import decoder_layers, norm_and_head
from interlace.model.paths import Layers, common_length, survivors
from interlace.model.states import forward, recorded, skipped, state_before


def losses_without(
    model: nn.Module, batch: Inputs, drops: Sequence[Layers], deepstack_layers: int
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
        for path, state in _outputs(model, batch, sharing):
            losses[path] = answer_loss(model, state, batch["labels"])
    return [losses[path] for path in paths]


def _outputs(
    model: nn.Module, batch: Inputs, paths: Sequence[Layers]
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
    arguments = recorded(model, inputs=[shared], arguments=every)
    with arguments as recording, skipped(layers[shared:]):
        forward(model, batch)
    states, last = [recording.inputs[shared]], every[:shared]  # one more after each later layer
    for path in paths:
        common = common_length(last, path)
        del states[common - shared + 1 :]
        for layer in path[common:]:
            states.append(recording.arguments[layer].output(layers[layer], states[-1]))
        yield path, states[-1]
        last = path
