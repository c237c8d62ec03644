"""The loss on answers: of a model, without one of its layers, and its gradient layer by layer.

Shapes: B samples, T padded tokens, d the decoder's width, V the vocabulary, N answer tokens. Every
loss is a sum of cross-entropies over answer tokens, so that sums of batches add up to the sum of
all samples however they are split. Logits exist for answer tokens only, a few at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from interlace.model import chat
from interlace.model.bypass import bypassed
from interlace.model.chat import IGNORED, Inputs
from interlace.model.decoder import decoder_layers, norm_and_head
from interlace.model.states import forward, recorded, state_before

CHUNK = 1024  # answer tokens whose logits exist at once: 600 MB for 151,936 words in float32


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
    layers, (norm, _) = decoder_layers(model), norm_and_head(model)
    everywhere = range(len(layers))
    with torch.inference_mode():
        with recorded(model, inputs=everywhere, arguments=everywhere) as recording:
            forward(model, batch)
        for position in positions:
            if position < deepstack_layers:
                with bypassed(model, [position]):
                    state = state_before(model, batch, norm)
            else:
                state = recording.inputs[position]
                for layer in everywhere[position + 1 :]:
                    state = recording.arguments[layer].output(layers[layer], state)
            losses.append(answer_loss(model, state, batch["labels"]))
    return losses


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
    layers = decoder_layers(model)
    everywhere = range(len(layers))
    with (
        torch.no_grad(),
        recorded(model, inputs=everywhere, arguments=everywhere) as recording,
    ):
        forward(model, batch)
    upstream: Tensor | None = None
    for position in reversed(everywhere):
        weights = dict(layers[position].named_parameters())
        with torch.enable_grad(), _requiring_grad(list(weights.values())):
            state = recording.inputs[position].detach().requires_grad_()
            output = recording.arguments[position].output(layers[position], state)
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


CHUNK = 512  # answer tokens whose logits exist at once: 300 MB for 151,936 words in float32


class AnswerLoss(nn.Module):
    """A model whose output is the sum of cross-entropies over the answer tokens of a batch.

    The sum is the same however an update is split into passes and processes, which a mean is not.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        _, self._head = norm_and_head(model)
        weight: Any = self._head.weight
        if hasattr(weight, "ds_id"):  # split by ZeRO-3: whole while this module runs
            import deepspeed

            deepspeed.zero.register_external_parameter(self, weight)

    def forward(self, inputs: chat.Inputs, labels: Tensor) -> Tensor:
        """The sum, a scalar in float32.

        Args:
            inputs: of the model, without labels.
            labels: [B, T], -100 where there is nothing to predict.
        """
        states, tokens = answer_states(normed_state(self.model, inputs), labels)

        def loss_of(part: Tensor, place: slice) -> Tensor:
            logits = logits_of(self.model, part)  # [n, V]
            return nn.functional.cross_entropy(logits, tokens[place], reduction="sum")

        return summed_loss(states, loss_of)


def normed_state(model: nn.Module, inputs: chat.Inputs) -> Tensor:
    """What the decoder hands to the head, behind the final norm, [B, T, d]."""
    base: Any = model.base_model
    state: Tensor = base(**inputs, use_cache=False)[0]
    return state


def summed_loss(states: Tensor, loss_of: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """A loss behind a frozen head, added up over parts of the answer tokens.

    Args:
        states: behind the final norm, [N, d].
        loss_of: the sum over a part's tokens, from its states [n, d] and its place among the N.
    """
    total: Tensor = _SummedLoss.apply(states, loss_of)
    return total


class _SummedLoss(torch.autograd.Function):
    """A sum over parts; its gradient is found on the way forward."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, loss_of: Callable[[Tensor, slice], Tensor]) -> Tensor:
        total = torch.zeros((), device=states.device)
        gradient = torch.zeros_like(states)  # [N, d]
        for begin in range(0, len(states), CHUNK):
            part = slice(begin, begin + CHUNK)
            with torch.enable_grad():
                leaf = states[part].detach().requires_grad_()
                loss = loss_of(leaf, part)
            (gradient[part],) = torch.autograd.grad(loss, leaf)
            total += loss.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None
