"""The loss on answers: of a model, without one of its layers, and its gradient layer by layer.

Shapes: B samples, T padded tokens, d the decoder's width, V the vocabulary, N answer tokens. Every
loss is a sum of cross-entropies over answer tokens, so that sums of batches add up to the sum of
all samples however they are split. Logits exist for answer tokens only, a few at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interlace.chat import IGNORED, Inputs
from interlace.errors import InputError
from interlace.families import bypassed, decoder_layers
from interlace.states import forward

CHUNK = 1024  # answer tokens whose logits exist at once: 600 MB for 151,936 words in float32


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


def answer_states(state: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The states that predict answer tokens, [N, d], and these tokens, [N].

    Args:
        state: output of the last layer, [B, T, d].
        labels: [B, T], -100 where there is nothing to predict.
    """
    predicts = labels[:, 1:] != IGNORED  # token t predicts token t+1
    return state[:, :-1][predicts], labels[:, 1:][predicts]


def answer_loss(model: nn.Module, state: Tensor, labels: Tensor) -> float:
    """Sum of cross-entropies over answer tokens, added up in float64.

    Args:
        model: its final norm and head are used.
        state: output of the last layer, [B, T, d].
        labels: [B, T], -100 where there is nothing to predict.
    """
    states, wanted = answer_states(state, labels)
    total = torch.zeros((), dtype=torch.float64, device=state.device)
    for part, tokens in _in_chunks(states, wanted):
        total += _cross_entropy(model, part, tokens)
    return total.item()


def _in_chunks(states: Tensor, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for begin in range(0, len(tokens), CHUNK):
        yield states[begin : begin + CHUNK], tokens[begin : begin + CHUNK]


def logits_of(model: nn.Module, states: Tensor) -> Tensor:
    """What the head makes of states behind the final norm, in float32.

    The head is called as a function of its weights: hooks on the module (DeepSpeed's) stay out.

    Args:
        model: a family's model.
        states: [N, d].

    Returns:
        Logits as the model itself scales and caps them, [N, V].
    """
    head: Any = norm_and_head(model)[1]
    text: Any = model.config.get_text_config(decoder=True)  # type: ignore[union-attr,operator]
    logits = nn.functional.linear(states, head.weight, head.bias).float()
    logits = logits / getattr(text, "logits_scaling", 1)
    if cap := getattr(text, "final_logit_softcapping", None):  # Gemma 2
        logits = cap * torch.tanh(logits / cap)
    return logits


def _cross_entropy(model: nn.Module, states: Tensor, tokens: Tensor) -> Tensor:
    norm, _ = norm_and_head(model)
    logits = logits_of(model, norm(states))
    each = nn.functional.cross_entropy(logits, tokens.to(logits.device), reduction="none")
    return each.double().sum()


def losses_without(
    model: nn.Module, batch: Inputs, positions: Sequence[int], deepstack_layers: int
) -> list[float]:
    """The loss of the model without each one of some layers.

    The states in front of a bypassed layer are those of the whole model, so that one pass of it
    serves all: each bypass runs the layers behind it. Where visual features are added behind the
    first positions, a bypass there moves them to other layers, and the whole model runs without it.

    Args:
        model: the model; it is as it was afterwards.
        batch: inputs and labels.
        positions: of the layers to bypass, one at a time.
        deepstack_layers: leading positions after which visual features are added.

    Returns:
        Sums over the answer tokens of the batch, in the order of `positions`.
    """
    losses = []
    with torch.inference_mode():
        calls = layer_calls(model, batch)
        for position in positions:
            if position < deepstack_layers:
                with bypassed(model, [position]):
                    state = last_state(model, batch)
            else:
                state = calls[position].state
                for call in calls[position + 1 :]:
                    state = call.output(state)
            losses.append(answer_loss(model, state, batch["labels"]))
    return losses


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


def layer_gradients(model: nn.Module, batch: Inputs) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Gradients of the loss by the weights of every decoder layer, from the last to the first.

    Each layer runs again on the input that it had, so that the graph of one layer exists at a time.
    What is added to the states between two layers (visual features) does not depend on decoder
    weights, and hands the gradient of the later input on to the earlier output as it is.

    Args:
        model: it is as it was afterwards; no `.grad` is touched.
        batch: inputs and labels.

    Yields:
        Layer, and the gradients of the sum over answer tokens by name of weight.
    """
    with torch.no_grad():
        calls = layer_calls(model, batch)
    upstream: Tensor | None = None
    for position in reversed(range(len(calls))):
        call = calls[position]
        weights = dict(call.layer.named_parameters())
        with torch.enable_grad(), _requiring_grad(list(weights.values())):
            state = call.state.detach().requires_grad_()
            output = call.output(state)
            if upstream is None:
                upstream = _gradient_by_state(model, output.detach(), batch["labels"])
            upstream, *found = torch.autograd.grad(
                output, [state, *weights.values()], upstream, allow_unused=True
            )
        named = zip(weights, found, strict=True)
        yield position, {name: gradient for name, gradient in named if gradient is not None}


def _gradient_by_state(model: nn.Module, state: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the loss by the last layer's output, [B, T, d], logits a few at a time."""
    states, wanted = answer_states(state, labels)
    parts: list[Tensor] = []
    for part, tokens in _in_chunks(states, wanted):
        leaf = part.detach().requires_grad_()
        parts += torch.autograd.grad(_cross_entropy(model, leaf, tokens), leaf)
    gradient = torch.zeros_like(state)
    gradient[:, :-1][labels[:, 1:] != IGNORED] = torch.cat(parts)
    return gradient


@contextmanager
def _requiring_grad(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for weight, required in zip(weights, before, strict=True):
            weight.requires_grad_(required)
