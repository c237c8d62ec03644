"""The hidden states of a forward pass: the inputs and outputs of decoder layers.

Shapes: B rows, T padded tokens, d the decoder's width, L its layers. The input `x_i` and output
`y_i` of layer i are [B, T, d], in the model's dtype and on the device of their layer. No other
module of the library registers hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from interlace.errors import ContractError
from interlace.model.chat import Inputs
from interlace.model.decoder import decoder_layers, following, norm_and_head

Key = TypeVar("Key", bound=Hashable)


@contextmanager
def hooked(
    modules: Mapping[Key, nn.Module],
    on_call: Callable[[Key, tuple[Any, ...], dict[str, Any]], None] | None = None,
    on_return: Callable[[Key, Any], Any] | None = None,
) -> Iterator[None]:
    """Call back around each call of some modules while the block runs.

    The hooks are removed when the block ends, also where it raises.

    Args:
        modules: by a key that the callbacks get.
        on_call: gets the key, and the positional and the named arguments of the call.
        on_return: gets the key and the output, the first item of a tuple. A tensor that it returns
            replaces the module's output.
    """
    handles = []
    try:
        for key, module in modules.items():
            if on_call is not None:
                hook = partial(_call, on_call, key)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            if on_return is not None:
                handles.append(module.register_forward_hook(partial(_return, on_return, key)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _call(callback: Any, key: Any, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
    callback(key, args, kwargs)


def _return(callback: Any, key: Any, _: nn.Module, __: Any, output: Any) -> Any:
    return callback(key, _first(output))


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    state: Tensor = args[0] if args else kwargs["hidden_states"]
    return state


@dataclass(frozen=True)
class Arguments:
    """The arguments of a decoder layer beside its input.

    Attributes:
        args: by position.
        kwargs: by name: mask, position embeddings.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def output(self, layer: nn.Module, state: Tensor) -> Tensor:
        """Call a layer with these arguments on an input [B, T, d]; return its output."""
        output: Tensor = _first(layer(state, *self.args, **self.kwargs))
        return output


@dataclass(frozen=True)
class Recording:
    """The latest forward pass, by layer.

    Attributes:
        inputs: true inputs, [B, T, d].
        outputs: true outputs, [B, T, d].
        arguments: the arguments beside the input.
    """

    inputs: dict[int, Tensor] = field(default_factory=dict)
    outputs: dict[int, Tensor] = field(default_factory=dict)
    arguments: dict[int, Arguments] = field(default_factory=dict)


@contextmanager
def recorded(
    model: nn.Module,
    *,
    inputs: Collection[int] = (),
    outputs: Collection[int] = (),
    arguments: Collection[int] = (),
) -> Iterator[Recording]:
    """Record the true inputs, outputs and arguments of decoder layers while the block runs.

    In a model with DeepStack the output of layer i is not the input of layer i+1, since visual
    features are added between them; hooks see both as they are.

    Args:
        model: its forward passes are recorded, each in place of the last.
        inputs: layers whose inputs are recorded.
        outputs: layers whose outputs are recorded.
        arguments: layers whose other arguments are recorded.

    Yields:
        The recording. Tensors are not copied: they have the model's dtype, the device of their
        layer, and the graph of the pass where it has one.
    """
    layers = decoder_layers(model)
    recording = Recording()

    def record(layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if layer in inputs:
            recording.inputs[layer] = _input(args, kwargs)
        if layer in arguments:
            extra = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            recording.arguments[layer] = Arguments(args[1:], extra)

    called = {layer: layers[layer] for layer in sorted({*inputs, *arguments})}
    returning = {layer: layers[layer] for layer in sorted(outputs)}
    with hooked(called, on_call=record), hooked(returning, on_return=recording.outputs.__setitem__):
        yield recording


@contextmanager
def skipped(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let layers return their input while the block runs; their hooks run as always."""
    wrapped = [(module, module.__dict__.get("forward")) for module in modules]
    try:
        for module, _ in wrapped:
            module.forward = lambda *args, **kwargs: _input(args, kwargs)
        yield
    finally:
        for module, forward in wrapped:
            del module.forward
            if forward is not None:  # a wrapper's, on this module alone
                module.forward = forward


class _ReachedError(Exception):
    def __init__(self, state: Tensor) -> None:
        self.state = state


def state_before(model: nn.Module, batch: Inputs, module: nn.Module) -> Tensor:
    """Run a model up to one of its modules, and stop there.

    Args:
        model: runs with its hooks and current weights.
        batch: inputs, per token [B, T]; labels are not used.
        module: a decoder layer or the final norm.

    Returns:
        The module's true input, [B, T, d].

    Raises:
        ContractError: the model's forward pass does not call the module.
    """

    def stop(_: None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _ReachedError(_input(args, kwargs))

    try:
        with hooked({None: module}, on_call=stop):
            forward(model, batch)
    except _ReachedError as reached:
        return reached.state
    raise ContractError(f"{type(model).__name__} does not call its {type(module).__name__}")


def forward(model: nn.Module, batch: Inputs, **options: Any) -> Any:
    """Run the decoder on a batch without the head: similarity needs no logits."""
    base: Any = model.base_model
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return base(**inputs, use_cache=False, **options)


def normed_state(model: nn.Module, batch: Inputs) -> Tensor:
    """Return the decoder's output after the final norm, [B, T, d]: the head's input."""
    if model.base_model is not model:
        state: Tensor = forward(model, batch)[0]
        return state
    # the thinkers of transformers before 5.21 have no base: what they return are logits
    states: dict[None, Tensor] = {}
    with hooked({None: norm_and_head(model)[0]}, on_return=states.__setitem__):
        forward(model, batch)
    return states[None]


def entering_features(model: nn.Module, batch: Inputs, positions: int) -> dict[int, Tensor]:
    """Return the visual features that are added to the states after the first layers, exactly.

    The layers' outputs are replaced by zeros, so what comes before the next layer was added.

    Args:
        model: may have bypassed layers.
        batch: inputs, per token [B, T].
        positions: leading layers after which features may be added.

    Returns:
        Features [B, T, d] by the count of layers before them, from 1.
    """
    layers = decoder_layers(model)[:positions]
    features: dict[int, Tensor] = {}
    if not len(layers):
        return features

    def record(position: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        features[position] = _input(args, kwargs)

    successors = {i + 1: following(model, i) for i in range(len(layers))}
    zeros = hooked(dict(enumerate(layers)), on_return=lambda _, output: torch.zeros_like(output))
    with zeros, hooked(successors, on_call=record):
        state_before(model, batch, successors[len(layers)])
    return features


def residual_states(model: nn.Module, batch: Inputs) -> tuple[list[Tensor], list[Tensor]]:
    """Return the true inputs and outputs of all L layers, [B, T, d] each."""
    layers = range(len(decoder_layers(model)))
    with recorded(model, inputs=layers, outputs=layers) as recording:
        forward(model, batch)
    return [recording.inputs[i] for i in layers], [recording.outputs[i] for i in layers]


def reference_states(model: nn.Module, batch: Inputs) -> tuple[list[Tensor], list[Tensor]]:
    """Return the inputs and outputs of layers as the published code has them, L-1 of each.

    The true input of layer i+1 stands for the output of layer i as well, so in a model with
    DeepStack the visual features count for the layer that they follow. No layer follows the last
    one, which has no score. The published code read `output_hidden_states` of transformers 4.57,
    which held these states; transformers 5 leaves the visual features out of them.
    """
    layers = range(len(decoder_layers(model)))
    with recorded(model, inputs=layers) as recording:
        forward(model, batch)
    inputs = [recording.inputs[i] for i in layers]
    return inputs[:-1], inputs[1:]


STATES = {"residual": residual_states, "reference": reference_states}


def first_not_finite(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], attended: Tensor
) -> tuple[int, int, str] | None:
    """Return the first hidden state in forward order whose length is not finite.

    A length is not finite if the state holds NaN or infinity, or its square exceeds float32.

    Args:
        inputs: `x_0 .. x_{L-1}`, each [B, T, d].
        outputs: `y_0 .. y_{L-1}`, each [B, T, d].
        attended: [B, T] bool; padding does not count.

    Returns:
        Row of the batch, layer, and "input" or "output"; `None` where all are finite.
    """
    for layer, pair in enumerate(zip(inputs, outputs, strict=True)):
        for side, state in zip(("input", "output"), pair, strict=True):
            lengths = torch.linalg.vector_norm(state.float(), dim=-1)  # [B, T]
            broken = ~lengths.isfinite() & attended.to(state.device)
            if broken.any():
                return int(broken.any(-1).nonzero()[0]), layer, side
    return None
