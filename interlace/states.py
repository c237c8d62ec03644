"""The hidden states of one forward pass: what every decoder layer takes in and gives out.

Shapes: B rows, T padded tokens, d the decoder's width, L its layers. The input `x_i` and output
`y_i` of layer i are [B, T, d], in the model's dtype and on the device of their layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from interlace.chat import Inputs
from interlace.families import decoder_layers


@contextmanager
def true_states(model: nn.Module) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Record the true input and output of every decoder layer while the block runs.

    In a model with DeepStack the output of layer i is not the input of layer i+1, since visual
    features are added between them; hooks see both as they are.

    Yields:
        Inputs and outputs, lists of L tensors [B, T, d], filled anew by each forward pass.
    """
    layers = decoder_layers(model)
    inputs: list[Tensor] = [torch.empty(0)] * len(layers)
    outputs: list[Tensor] = [torch.empty(0)] * len(layers)

    def before(i: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            inputs[i] = args[0] if args else kwargs["hidden_states"]

        return hook

    def after(i: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            outputs[i] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = []
    for i, layer in enumerate(layers):
        handles.append(layer.register_forward_pre_hook(before(i), with_kwargs=True))
        handles.append(layer.register_forward_hook(after(i)))
    try:
        yield inputs, outputs
    finally:
        for handle in handles:
            handle.remove()


def forward(model: nn.Module, batch: Inputs, **options: Any) -> Any:
    """Run the decoder on a batch without the head: similarity needs no logits."""
    base: Any = model.base_model
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return base(**inputs, use_cache=False, **options)


def residual_states(model: nn.Module, batch: Inputs) -> tuple[list[Tensor], list[Tensor]]:
    """True inputs and outputs of all L layers, [B, T, d] each."""
    with true_states(model) as (inputs, outputs):
        forward(model, batch)
        return list(inputs), list(outputs)


def reference_states(model: nn.Module, batch: Inputs) -> tuple[list[Tensor], list[Tensor]]:
    """What the published code takes for inputs and outputs: `output_hidden_states`.

    State i+1 stands for the output of layer i (DeepStack features not yet added) and for the input
    of layer i+1 alike. The last state lies behind the final norm and is left out, so the last layer
    has no score.
    """
    states = forward(model, batch, output_hidden_states=True).hidden_states
    return list(states[:-2]), list(states[1:-1])


STATES = {"residual": residual_states, "reference": reference_states}


def first_not_finite(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], attended: Tensor
) -> tuple[int, int, str] | None:
    """Where a state's length is first not finite, in the order in which the states come about.

    It is not where the state holds NaN or infinity, or numbers whose squares pass float32.

    Args:
        inputs: `x_0 .. x_{L-1}`, each [B, T, d].
        outputs: `y_0 .. y_{L-1}`, each [B, T, d].
        attended: [B, T] bool; padding does not count.

    Returns:
        Row of the batch, layer, and "input" or "output"; none where all are finite.
    """
    for layer, pair in enumerate(zip(inputs, outputs, strict=True)):
        for side, state in zip(("input", "output"), pair, strict=True):
            lengths = torch.linalg.vector_norm(state.float(), dim=-1)  # [B, T]
            broken = ~lengths.isfinite() & attended.to(state.device)
            if broken.any():
                return int(broken.any(-1).nonzero()[0]), layer, side
    return None
