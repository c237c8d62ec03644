"""The loss on answers: of a model, with its gradient, and in training.

Shapes: B samples, T padded tokens, d the decoder's width, V the vocabulary, N answer tokens. A loss
is always a sum of cross-entropies over answer tokens, so the sums of batches add up to that of all
samples, however they are split. Logits exist for answer tokens only, a few at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from interlace.model.chat import IGNORED, Inputs
from interlace.model.decoder import decoder_layers, norm_and_head
from interlace.model.states import Recording, forward, normed_state, recorded

CHUNK = 512  # answer tokens whose logits exist at once: 300 MB for 151,936 words in float32
_MEASURED_CHUNKS = 2  # of these at once where nothing is trained


def answer_states(state: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the states that predict answer tokens, [N, d], and these tokens, [N].

    Args:
        state: output of the last layer, [B, T, d].
        labels: [B, T], -100 where there is nothing to predict.
    """
    predicts = labels[:, 1:] != IGNORED  # token t predicts token t+1
    return state[:, :-1][predicts], labels[:, 1:][predicts]


def logits_of(model: nn.Module, states: Tensor) -> Tensor:
    """Apply the head to states after the final norm, in float32.

    The head is called as a function of its weights, without hooks on the module (DeepSpeed's).

    Args:
        model: a family's model.
        states: [N, d].

    Returns:
        Logits as the model itself scales and caps them, [N, V].
    """
    head: Any = norm_and_head(model)[1]
    text: Any = model.config.get_text_config(decoder=True)  # type: ignore[union-attr,operator]
    logits = nn.functional.linear(states, head.weight, head.bias).float()
    if (scaling := getattr(text, "logits_scaling", 1)) != 1:  # Granite
        logits = logits * scaling if text.model_type == "hyperclovax" else logits / scaling
    if (width := getattr(text, "logits_mup_width_multiplier", None) or 1) != 1:  # Inkling
        logits = logits / width
    if (scale := getattr(text, "output_multiplier", 1)) != 1:  # Muse
        logits = logits * scale
    if (
        scale := getattr(model, "logit_scale", None) or 1
    ) != 1:  # Cohere 2 alone, not below a tower
        logits = logits * scale
    if cap := getattr(text, "final_logit_softcapping", None):  # Gemma 2
        logits = cap * torch.tanh(logits / cap)
    return logits


def _chunks(length: int, size: int) -> Iterator[slice]:
    for begin in range(0, length, size):
        yield slice(begin, begin + size)


def answer_loss(model: nn.Module, state: Tensor, labels: Tensor) -> float:
    """Sum the cross-entropies of answer tokens in float64.

    Args:
        model: its final norm and head are used.
        state: output of the last layer, [B, T, d].
        labels: [B, T], -100 where there is nothing to predict.
    """
    states, tokens = answer_states(state, labels)
    total = torch.zeros((), dtype=torch.float64, device=state.device)
    for chunk in _chunks(len(tokens), _MEASURED_CHUNKS * CHUNK):
        total += _loss_of_states(model, states[chunk], tokens[chunk])
    return total.item()


def token_losses(model: nn.Module, batch: Inputs) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of each answer token, and the model's first choice in its place.

    Args:
        model: in evaluation mode.
        batch: inputs and labels.

    Returns:
        Cross-entropies in nats, [N] float64, and choices, [N] int64; row by row.
    """
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    losses: list[Tensor] = []
    choices: list[Tensor] = []
    with torch.inference_mode():
        states, tokens = answer_states(normed_state(model, inputs), batch["labels"])
        for chunk in _chunks(len(tokens), _MEASURED_CHUNKS * CHUNK):
            logits = logits_of(model, states[chunk])  # [n, V]
            labels = tokens[chunk].to(logits.device)
            losses.append(cross_entropy(logits, labels, reduction="none").double())
            choices.append(logits.argmax(dim=-1))
    return torch.cat(losses), torch.cat(choices)


def _loss_of_states(model: nn.Module, states: Tensor, tokens: Tensor) -> Tensor:
    norm, _ = norm_and_head(model)
    logits = logits_of(model, norm(states))
    losses = cross_entropy(logits, tokens.to(logits.device), reduction="none")
    return losses.double().sum()


def _recorded_pass(model: nn.Module, batch: Inputs) -> Recording:
    layers = range(len(decoder_layers(model)))
    with recorded(model, inputs=layers, arguments=layers) as recording:
        forward(model, batch)
    return recording


def layer_gradients(model: nn.Module, batch: Inputs) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Compute the loss's gradients by the weights of all decoder layers, from last to first.

    Each layer runs again on its recorded input, so the graph of one layer exists at a time. What is
    added to the states between two layers (visual features) does not depend on decoder weights: the
    gradient of the later input is that of the earlier output.

    Args:
        model: it is unchanged afterwards; no `.grad` is touched.
        batch: inputs and labels.

    Yields:
        Layer, and the gradients of the sum over answer tokens by name of weight.
    """
    with torch.no_grad():
        recording = _recorded_pass(model, batch)
    layers = decoder_layers(model)
    upstream: Tensor | None = None
    for position in reversed(range(len(layers))):
        weights = dict(layers[position].named_parameters())
        with torch.enable_grad(), _requiring_grad(list(weights.values())):
            state = recording.inputs[position].detach().requires_grad_()
            output = recording.arguments[position].output(layers[position], state)
            if upstream is None:
                upstream = _gradient_by_state(model, output.detach(), batch["labels"])
            upstream, *gradients = torch.autograd.grad(
                output, [state, *weights.values()], upstream, allow_unused=True
            )
        by_name = zip(weights, gradients, strict=True)
        yield position, {name: gradient for name, gradient in by_name if gradient is not None}


def _gradient_by_state(model: nn.Module, state: Tensor, labels: Tensor) -> Tensor:
    """Return the loss's gradient by the last layer's output, [B, T, d]."""
    states, tokens = answer_states(state, labels)
    gradients: list[Tensor] = []
    for chunk in _chunks(len(tokens), _MEASURED_CHUNKS * CHUNK):
        leaf = states[chunk].detach().requires_grad_()
        gradients += torch.autograd.grad(_loss_of_states(model, leaf, tokens[chunk]), leaf)
    gradient = torch.zeros_like(state)
    gradient[:, :-1][labels[:, 1:] != IGNORED] = torch.cat(gradients)
    return gradient


@contextmanager
def _requiring_grad(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    required = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for weight, value in zip(weights, required, strict=True):
            weight.requires_grad_(value)


class AnswerLoss(nn.Module):
    """A model whose output is the sum of cross-entropies over the answer tokens of a batch.

    The sum is the same however an update is split into passes and processes; a mean is not.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        _, self._head = norm_and_head(model)
        weight: Any = self._head.weight
        if hasattr(weight, "ds_id"):  # split by ZeRO-3: gathered while this module runs
            import deepspeed

            deepspeed.zero.register_external_parameter(self, weight)

    def forward(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """Compute the sum, a scalar in float32.

        Args:
            inputs: of the model, without labels.
            labels: [B, T], -100 where there is nothing to predict.
        """
        states, tokens = answer_states(normed_state(self.model, inputs), labels)

        def loss_of(chunk_states: Tensor, chunk: slice) -> Tensor:
            logits = logits_of(self.model, chunk_states)  # [n, V]
            return cross_entropy(logits, tokens[chunk], reduction="sum")

        return summed_loss(states, loss_of, self.head_weights)

    @property
    def head_weights(self) -> list[nn.Parameter]:
        """The head's weights that are trained: none, unless `finetune.also` names it."""
        return [weight for weight in self._head.parameters() if weight.requires_grad]


def summed_loss(
    states: Tensor,
    loss_of: Callable[[Tensor, slice], Tensor],
    head_weights: Sequence[nn.Parameter] = (),
) -> Tensor:
    """Add up a loss after the head over chunks of the answer tokens.

    Args:
        states: after the final norm, [N, d].
        loss_of: the sum over one chunk, from its states [n, d] and its slice of the N.
        head_weights: weights that `loss_of` reads and that are trained.
    """
    total: Tensor = _SummedLoss.apply(states, loss_of, *head_weights)
    return total


class _SummedLoss(torch.autograd.Function):
    """A sum over chunks, whose gradients are computed in the forward pass: no logits are kept."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, loss_of: Callable[[Tensor, slice], Tensor], *weights: Tensor
    ) -> Tensor:
        total = torch.zeros((), device=states.device)
        gradient = torch.zeros_like(states)  # [N, d]
        sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        for chunk in _chunks(len(states), CHUNK):
            with torch.enable_grad():
                leaf = states[chunk].detach().requires_grad_()
                loss = loss_of(leaf, chunk)
            gradient[chunk], *by_weight = torch.autograd.grad(loss, [leaf, *weights])
            for weight_sum, by_chunk in zip(sums, by_weight, strict=True):
                weight_sum += by_chunk
            total += loss.detach()
        by_weight = [s.to(w.dtype) for s, w in zip(sums, weights, strict=True)]
        ctx.save_for_backward(gradient, *by_weight)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        gradient, *by_weight = ctx.saved_tensors
        return gradient * upstream, None, *(weight * upstream for weight in by_weight)
