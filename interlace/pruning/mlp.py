"""Where the MLP of a decoder layer ends, and what the layer does with its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from interlace.errors import InputError
from interlace.model.bypass import decoder_layers
from interlace.model.chat import Inputs
from interlace.model.states import Call, layer_calls

LAST_LINEAR = ("mlp.down_proj", "feed_forward.w2")  # names within a decoder layer
_NOISE = 0.05  # relative: what rounding to bfloat16 makes of a difference of two states


def last_linear(model: nn.Module, layer: int) -> tuple[str, nn.Linear]:
    """The linear layer that a decoder layer's MLP ends in, and its name within the layer.

    Raises:
        InputError: it has none, as a mixture of experts.
    """
    whole = decoder_layers(model)[layer]
    modules = dict(whole.named_modules())
    for name in LAST_LINEAR:
        if isinstance(found := modules.get(name), nn.Linear):
            return name, found
    raise InputError(
        f"export.compensate = lstsq: layer {layer}, a {type(whole).__name__}, has an MLP that does"
        f" not end in one linear layer ({' or '.join(LAST_LINEAR)}); set it to none"
    )


def residual_multiplier(model: nn.Module) -> float:
    """What a layer multiplies its MLP's output by (Granite's); 1 elsewhere."""
    text: Any = model.config.get_text_config(decoder=True)  # type: ignore[union-attr,operator]
    return float(getattr(text, "residual_multiplier", 1.0))


def check_added_as_it_is(model: nn.Module, layers: Sequence[int], batch: Inputs) -> None:
    """Refuse layers that do not add what their MLP's last linear layer gives to the state.

    Some normalise or scale it first, so that a map in front of that is another map behind it. Each
    layer is asked what it adds for a made-up output, whose tokens differ in size.

    Args:
        model: the model; it is as it was afterwards.
        layers: of its decoder.
        batch: inputs to run it on.

    Raises:
        InputError: names the first such layer.
    """
    linears = {layer: last_linear(model, layer)[1] for layer in layers}
    if not layers:
        return
    with torch.inference_mode():
        calls = layer_calls(model, batch)
        for layer, linear in linears.items():
            asked = _made_up(calls[layer].state, layer)
            given = _with_output(linear, asked, calls[layer])
            given -= _with_output(linear, torch.zeros_like(asked), calls[layer])
            expected = asked.float() * residual_multiplier(model)
            if (given - expected).norm() > _NOISE * expected.norm():
                raise InputError(
                    f"export.compensate = lstsq: layer {layer}, a"
                    f" {type(calls[layer].layer).__name__}, normalises or scales what its MLP gives"
                    " before it adds it; set it to none"
                )


def _made_up(state: Tensor, seed: int) -> Tensor:
    """Noise [B, T, d] as large as a state, and twice as large at every second token."""
    noise = torch.randn(state.shape, generator=torch.Generator().manual_seed(seed))
    noise *= 1 + torch.arange(state.shape[1])[:, None] % 2
    noise *= state.float().square().mean().sqrt().item()
    return noise.to(state.device, state.dtype)


def _with_output(linear: nn.Linear, value: Tensor, call: Call) -> Tensor:
    """What a layer gives, float32 [B, T, d], when its MLP gives a certain value."""
    handle = linear.register_forward_hook(lambda _, __, output: value.reshape(output.shape))
    try:
        return call.output(call.state).float()
    finally:
        handle.remove()
