"""Keep the pruned model close to the dense one while it is trained on answers.

Two terms are added to the cross-entropy: the divergence of the next-token distributions at answer
tokens, and the relative error of the hidden states behind the anchors. The dense model, frozen and
whole in every process, sees every pass as the pruned model does, packed or padded.

Shapes: B rows of T tokens, V the vocabulary, d the hidden width, N answer tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from interlace.model.answer_loss import (
    AnswerLoss,
    answer_states,
    logits_of,
    normed_state,
    summed_loss,
)
from interlace.model.chat import IGNORED, Inputs
from interlace.model.states import recorded
from interlace.params.healing import Finetune
from interlace.plan.record import Plan


class DistilledLoss(AnswerLoss):
    """`AnswerLoss`, and what the teacher adds, summed over the answer tokens of a batch."""

    def __init__(self, model: nn.Module, teacher: Any, plan: Plan, params: Finetune) -> None:
        """Take the models.

        Args:
            model: the pruned model.
            teacher: the dense model.
            plan: which layers the pruned model has, and which are anchors.
            params: the weights of the terms, and the temperature.
        """
        super().__init__(model)
        self._teacher = (teacher.eval().requires_grad_(False),)  # no part of what is trained
        held = anchors(plan) if params.distill_states else []
        self._positions = {layer: plan.keep.index(layer) for layer in held}
        self._params = params

    def forward(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """See `AnswerLoss`."""
        params, (teacher,) = self._params, self._teacher
        with torch.no_grad(), recorded(teacher, outputs=self._positions) as teacher_pass:
            goal, _ = answer_states(normed_state(teacher, inputs), labels)
        with recorded(self.model, outputs=self._positions.values()) as student_pass:
            states, tokens = answer_states(normed_state(self.model, inputs), labels)

        def loss_of(part: Tensor, place: slice) -> Tensor:
            logits = logits_of(self.model, part)  # [n, V]
            loss = nn.functional.cross_entropy(logits, tokens[place], reduction="sum")
            if params.distill_logits:
                wanted = logits_of(teacher, goal[place])
                far = divergence(logits, wanted, params.temperature)
                loss = loss + params.distill_logits * far
            return loss

        total = summed_loss(states, loss_of)
        if params.distill_states:
            positions = self._positions.items()
            states_by_anchor = {
                layer: student_pass.outputs[position] for layer, position in positions
            }
            errors = state_errors(states_by_anchor, teacher_pass.outputs)
            errors = errors * token_weights(inputs, labels)  # [B, T]
            total = total + params.distill_states * errors.sum()
        return total


def anchors(plan: Plan) -> list[int]:
    """Layers whose states are held to the dense model's.

    The anchors of the groups; where there are none, the kept layers that follow a tuned one; the
    last layer where there are none either. None lies below the lowest tuned layer: nothing that is
    tuned changes the states there.
    """
    kept = [layer for layer in plan.keep if layer >= min(plan.tune)]
    named = {group.anchor for group in plan.groups if group.anchor is not None} & set(kept)
    follow = {after for layer, after in pairwise(kept) if layer in plan.tune}
    return sorted(named or follow or {kept[-1]})


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


def state_errors(student: Mapping[int, Tensor], teacher: Mapping[int, Tensor]) -> Tensor:
    """`||s - t||^2 / ||t||^2` of each token in float32, mean over anchors, [B, T].

    Args:
        student: states by anchor, [B, T, d] each.
        teacher: the same of the dense model.
    """
    errors = [
        (student[layer].float() - goal.float()).square().sum(-1)
        / goal.float().square().sum(-1).clamp_min(torch.finfo().tiny)
        for layer, goal in teacher.items()
    ]
    return torch.stack(errors).mean(0)  # [A, B, T] -> [B, T]


def token_weights(inputs: Inputs, labels: Tensor) -> Tensor:
    """A sample's answer tokens divided by all its tokens, at each of these; 0 in padding, [B, T].

    A sum with these weights over a batch is the sum over samples of their mean times their answer
    tokens, whatever rows and passes they are split into.

    Args:
        inputs: of the model; `position_ids` restart at 0 with each sample of a packed row.
        labels: [B, T], -100 where there is nothing to predict.
    """
    answers = (labels != IGNORED).float()
    answers[:, 0] = 0  # nothing precedes
    if (places := inputs.get("position_ids")) is not None:
        text = places[0] if places.ndim == 3 else places  # with mrope the first kind is the text's
        sample, valid = (text == 0).cumsum(1) - 1, torch.ones_like(answers)
    else:
        sample, valid = torch.zeros_like(labels), inputs["attention_mask"].float()
    none = answers.new_zeros(len(labels), int(sample.max()) + 1)  # [B, samples]
    share = none.scatter_add(1, sample, answers) / none.scatter_add(1, sample, valid).clamp_min(1)
    return valid * share.gather(1, sample)
