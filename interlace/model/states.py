"""The hidden states of one forward pass: what every decoder layer takes in and gives out.

Shapes: B rows, T padded tokens, d the decoder's width, L its layers. The input `x_i` and output
`y_i` of layer i are [B, T, d], in the model's dtype and on the device of their layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interlace.errors import ContractError, InputError
from interlace.model.bypass import decoder_layers
from interlace.model.chat import Inputs


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


class _ReachedError(Exception):
    def __init__(self, state: Tensor) -> None:
        self.state = state


def following(model: nn.Module, layer: int) -> nn.Module:
    """What takes the state behind a layer: the next layer, or behind the last the final norm."""
    layers = decoder_layers(model)
    return layers[layer + 1] if layer + 1 < len(layers) else norm_and_head(model)[0]


def state_before(model: nn.Module, batch: Inputs, module: nn.Module) -> Tensor:
    """Run a model up to one of its modules.

    Args:
        model: its hooks and weights count, e.g. those of layers in front of the module.
        batch: inputs, per token [B, T]; labels are left out.
        module: a decoder layer or the final norm.

    Returns:
        The module's true input, [B, T, d].

    Raises:
        ContractError: the model's forward pass does not call the module.
    """

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _ReachedError(args[0] if args else kwargs["hidden_states"])

    handle = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        forward(model, batch)
    except _ReachedError as reached:
        return reached.state
    finally:
        handle.remove()
    raise ContractError(f"{type(model).__name__} does not call its {type(module).__name__}")


@dataclass(frozen=True)
class Call:
    """How the model called one of its layers.

    Attributes:
        layer: the layer.
        state: its true input, [B, T, d].
        args: what else it was given by position.
        kwargs: what else it was given by name: mask, position embeddings.
    """

    layer: nn.Module
    state: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def output(self, state: Tensor) -> Tensor:
        """What the layer makes of another input, called as the model called it, [B, T, d]."""
        made = self.layer(state, *self.args, **self.kwargs)
        output: Tensor = made[0] if isinstance(made, tuple) else made
        return output


def layer_calls(model: nn.Module, batch: Inputs) -> list[Call]:
    """Run the model once and record how it calls every decoder layer, in order."""
    calls: list[Call] = []

    def record(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = dict(kwargs)
        state = args[0] if args else named.pop("hidden_states")
        calls.append(Call(layer, state, args[1:], named))

    handles = [
        layer.register_forward_pre_hook(record, with_kwargs=True) for layer in decoder_layers(model)
    ]
    try:
        forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def norm_and_head(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """What follows the last decoder layer: the final norm, and the head that gives logits.

    Raises:
        InputError: they are not where every supported family has them.
    """
    decoder: Any = model.get_decoder()  # type: ignore[operator]
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    norm = getattr(decoder, "norm", None) or getattr(decoder, "embedding_norm", None)  # LFM2's
    if not isinstance(norm, nn.Module) or head is None:
        raise InputError(
            f"{type(model).__name__}: no final norm at get_decoder().norm, or no output embeddings;"
            " the loss on answers needs both: choose another method, or export.compensate = none"
        )
    return norm, head


def last_state(model: nn.Module, batch: Inputs) -> Tensor:
    """What the decoder's last layer hands to the final norm, [B, T, d]."""
    seen: list[Tensor] = []
    norm, _ = norm_and_head(model)
    handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        forward(model, batch)
    finally:
        handle.remove()
    return seen[0]
