"""The last linear layer of a decoder layer's MLP, and checks that its output is added as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from interlace.errors import InputError
from interlace.model.chat import Inputs
from interlace.model.decoder import decoder_layers
from interlace.model.states import Arguments, forward, hooked, recorded

LAST_LINEAR = ("mlp.down_proj", "feed_forward.w2")  # names within a decoder layer
_NOISE = 0.05  # relative error of a difference of two states in bfloat16


def last_linear(model: nn.Module, layer: int) -> tuple[str, nn.Linear]:
    """Return the name and the module of the linear layer that a decoder layer's MLP ends in.

    Raises:
        InputError: there is none, as in a mixture of experts.
    """
    decoder_layer = decoder_layers(model)[layer]
    modules = dict(decoder_layer.named_modules())
    for name in LAST_LINEAR:
        if isinstance(module := modules.get(name), nn.Linear):
            return name, module
    raise InputError(
        f"export.compensate = lstsq: layer {layer}, a {type(decoder_layer).__name__}, has an MLP"
        f" that does not end in one linear layer ({' or '.join(LAST_LINEAR)}); set it to none"
    )


def ends_in_linear(model: nn.Module, layer: int) -> bool:
    """Return True if a decoder layer's MLP ends in one linear layer that `last_linear` finds."""
    modules = dict(decoder_layers(model)[layer].named_modules())
    return any(isinstance(modules.get(name), nn.Linear) for name in LAST_LINEAR)


def residual_multiplier(model: nn.Module) -> float:
    """Return the factor of the MLP's output in Granite's layers; 1 elsewhere."""
    text: Any = model.config.get_text_config(decoder=True)  # type: ignore[union-attr,operator]
    return float(getattr(text, "residual_multiplier", 1.0))


def check_added_as_it_is(model: nn.Module, layers: Sequence[int], batch: Inputs) -> None:
    """Refuse layers that do not add the output of their MLP's last linear layer to the state.

    Some normalise or scale it first, which changes the effect of another weight. The first layer of
    each class is run with noise as that output, whose tokens differ in size.

    Args:
        model: the model; unchanged on return.
        layers: of its decoder.
        batch: inputs to run it on.

    Raises:
        InputError: names the first such layer.
    """
    every = decoder_layers(model)
    one_of_each = {type(every[layer]): layer for layer in reversed(layers)}  # the first of a class
    linears = {layer: last_linear(model, layer)[1] for layer in sorted(one_of_each.values())}
    if not layers:
        return
    with torch.inference_mode():
        with recorded(model, inputs=list(linears), arguments=list(linears)) as recording:
            forward(model, batch)
        for number, linear in linears.items():
            layer, state = decoder_layers(model)[number], recording.inputs[number]
            noise = _noise(state, number)
            added = _output(layer, state, recording.arguments[number], linear, noise)
            added -= _output(
                layer, state, recording.arguments[number], linear, torch.zeros_like(noise)
            )
            expected = noise.float() * residual_multiplier(model)
            if (added - expected).norm() > _NOISE * expected.norm():
                raise InputError(
                    f"export.compensate = lstsq: layer {number}, a"
                    f" {type(layer).__name__}, normalises or scales the output of"
                    " its MLP before it adds it; set it to none"
                )


def _noise(state: Tensor, seed: int) -> Tensor:
    """Noise [B, T, d] as large as a state, and twice as large at every second token."""
    noise = torch.randn(state.shape, generator=torch.Generator().manual_seed(seed))
    noise *= 1 + torch.arange(state.shape[1])[:, None] % 2
    noise *= state.float().square().mean().sqrt().item()
    return noise.to(state.device, state.dtype)


def _output(
    layer: nn.Module, state: Tensor, arguments: Arguments, linear: nn.Linear, value: Tensor
) -> Tensor:
    """Return a layer's output, float32 [B, T, d], where its MLP's linear layer gives a value."""
    with hooked({None: linear}, on_return=lambda _, output: value.reshape(output.shape)):
        return arguments.output(layer, state).float()
