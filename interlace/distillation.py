"""Keep the pruned model close to the dense one while it is trained on answers.

Two terms are added to the cross-entropy: the divergence of the next-token distributions at answer
tokens, and the relative error of the hidden states behind the anchors. The dense model, frozen,
sees every batch as the pruned model does: its forward pass hangs on the pruned model's.

Shapes: B rows of T tokens, V the vocabulary, d the hidden width, N answer tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from interlace.chat import IGNORED
from interlace.families import decoder_layers
from interlace.finetune import Loss, token_mean
from interlace.params import Finetune
from interlace.plan import Plan


@dataclass
class Seen:
    """What both models made of the batch at hand; states are by the anchor's dense layer."""

    logits: Tensor | None = None
    valid: Tensor | None = None
    teacher: dict[int, Tensor] = field(default_factory=dict)
    student: dict[int, Tensor] = field(default_factory=dict)


def distilled(student: nn.Module, teacher: Any, plan: Plan, params: Finetune) -> Loss:
    """A loss for the Trainer: `finetune.token_mean`, and what the teacher adds.

    Args:
        student: the pruned model; gets hooks for good.
        teacher: the dense model, in eval mode.
        plan: which layers the student has, and which are anchors.
        params: the weights of the terms, and the temperature.
    """
    seen = Seen()
    positions = {layer: plan.keep.index(layer) for layer in anchors(plan)}
    if params.distill_states:
        for layer, position in positions.items():
            _keep_output(decoder_layers(teacher)[layer], seen.teacher, layer)
            _keep_output(decoder_layers(student)[position], seen.student, layer)

    def ask_teacher(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = {k: v for k, v in kwargs.items() if k not in ("labels", "num_items_in_batch")}
        with torch.no_grad():
            seen.logits = teacher(*args, **inputs | {"use_cache": False}).logits
        seen.valid = kwargs.get("attention_mask")

    student.register_forward_pre_hook(ask_teacher, with_kwargs=True)

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        total = token_mean(outputs, labels, num_items_in_batch=num_items_in_batch)
        counts = (labels[:, 1:] != IGNORED).sum(1)  # [B]
        everything = counts.sum() if num_items_in_batch is None else num_items_in_batch
        if params.distill_logits:
            assert seen.logits is not None  # the student's pass, and so the hook, came first
            ours, theirs = (answer_logits(x, labels) for x in (outputs.logits, seen.logits))
            far = divergence(ours, theirs, params.temperature)
            total = total + params.distill_logits * far / everything
        if params.distill_states:
            errors = state_errors(seen.student, seen.teacher, seen.valid)  # [B]
            total = total + params.distill_states * (errors * counts).sum() / everything
        return total

    return loss


def anchors(plan: Plan) -> list[int]:
    """Layers whose states are held to the dense model's.

    The anchors of the groups; where there are none, the kept layers that follow a tuned one; the
    last layer where there are none either.
    """
    kept = plan.keep
    named = {group.anchor for group in plan.groups} & set(kept)
    follow = {after for layer, after in pairwise(kept) if layer in plan.tune}
    return sorted(layer for layer in named or follow or {kept[-1]} if layer is not None)


def answer_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits that predict answer tokens: [B, T, V] and labels [B, T] -> [N, V]."""
    return logits[:, :-1][labels[:, 1:] != IGNORED]


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`temperature^2 * KL(teacher || student)`, summed over tokens, in float32.

    The square keeps the gradient's size as the temperature changes (arXiv 1503.02531, section 2).

    Args:
        student: logits, [N, V].
        teacher: logits, [N, V].
        temperature: divides both.
    """
    ours, theirs = (
        torch.log_softmax(logits.float() / temperature, dim=-1) for logits in (student, teacher)
    )
    return temperature**2 * (theirs.exp() * (theirs - ours)).sum()


def state_errors(
    student: Mapping[int, Tensor], teacher: Mapping[int, Tensor], valid: Tensor | None
) -> Tensor:
    """`||s - t||^2 / ||t||^2` in float32, mean over anchors and each row's valid tokens.

    Args:
        student: states by anchor, [B, T, d] each.
        teacher: the same of the dense model.
        valid: [B, T], 0 for padding; none: every token counts.

    Returns:
        [B], so that rows can be weighed whatever passes they are split into.
    """
    per_token = torch.stack(
        [
            (student[layer].float() - goal.float()).square().sum(-1)
            / goal.float().square().sum(-1).clamp_min(torch.finfo().tiny)
            for layer, goal in teacher.items()
        ]
    ).mean(0)  # [A, B, T] -> [B, T]
    weights = torch.ones_like(per_token) if valid is None else valid.to(per_token.dtype)
    return (per_token * weights).sum(1) / weights.sum(1)


def _keep_output(layer: nn.Module, states: dict[int, Tensor], number: int) -> None:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        states[number] = output[0] if isinstance(output, tuple) else output

    layer.register_forward_hook(hook)
