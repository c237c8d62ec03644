"""The loss of training: its value and its gradient, logits a few answer tokens at a time.

Only decoder layers are tuned, so that the head is frozen and all that the loss sends back is one
gradient per answer token's state. It is found together with the loss, and no logits are kept.
Shapes: N answer tokens, d the decoder's width, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from interlace import chat
from interlace.answer_loss import answer_states, logits_of, norm_and_head

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
