"""Keep the pruned model close to the dense one while it is trained on answers.

Two terms are added to the cross-entropy: the divergence of the next-token distributions at answer
tokens, and the relative error of the hidden states after the anchors. Every process holds the
frozen dense model, which gets the same passes as the pruned one, packed or padded.

Shapes: B rows of T tokens, V the vocabulary, d the hidden width, N answer tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from interlace.model.answer_loss import AnswerLoss, answer_states, logits_of, summed_loss
from interlace.model.chat import IGNORED, Inputs
from interlace.model.states import normed_state, recorded
from interlace.params.healing import Finetune
from interlace.plan.record import Plan


class DistilledLoss(AnswerLoss):
    """`AnswerLoss` plus the terms of the teacher, summed over the answer tokens of a batch."""

    def __init__(self, model: nn.Module, teacher: Any, plan: Plan, params: Finetune) -> None:
        """Take the models.

        Args:
            model: the pruned model.
            teacher: the dense model.
            plan: which layers the pruned model has, and which are anchors.
            params: the weights of the terms, and the temperature.
        """
        super().__init__(model)
        self._teacher = (
            teacher.eval().requires_grad_(False),
        )  # a tuple hides it from the module's parameters
        layers = anchors(plan) if params.distill_states else []
        self._positions = {layer: plan.keep.index(layer) for layer in layers}
        self._params = params

    def forward(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """See `AnswerLoss`."""
        params, (teacher,) = self._params, self._teacher
        with torch.no_grad(), recorded(teacher, outputs=self._positions) as teacher_pass:
            teacher_states, _ = answer_states(normed_state(teacher, inputs), labels)
        with recorded(self.model, outputs=self._positions.values()) as student_pass:
            states, tokens = answer_states(normed_state(self.model, inputs), labels)

        def loss_of(chunk: Tensor, rows: slice) -> Tensor:
            logits = logits_of(self.model, chunk)  # [n, V]
            loss = nn.functional.cross_entropy(logits, tokens[rows], reduction="sum")
            if params.distill_logits:
                teacher_logits = logits_of(teacher, teacher_states[rows])
                distance = divergence(logits, teacher_logits, params.temperature)
                loss = loss + params.distill_logits * distance
            return loss

        total = summed_loss(states, loss_of, self.head_weights)
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
    """Return the layers whose states are compared with the dense model's.

    They are the anchors of the groups, else the kept layers that follow a tuned one, else the last
    layer. None lies below the lowest tuned layer: no tuned layer changes the states there.
    """
    candidates = [layer for layer in plan.keep if layer >= min(plan.tune, default=0)]
    group_anchors = {group.anchor for group in plan.groups if group.anchor is not None} & set(
        candidates
    )
    following = {upper for layer, upper in pairwise(candidates) if layer in plan.tune}
    return sorted(group_anchors or following or {candidates[-1]})


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return `temperature^2 * KL(teacher || student)`, summed over tokens, in float32.

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
    """Return `||s - t||^2 / ||t||^2` of each token in float32, mean over anchors, [B, T].

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
    """Return each token's weight: its sample's share of answer tokens, 0 in padding, [B, T].

    A sum with these weights over a batch is the sum over samples of their mean times their answer
    tokens, whatever rows and passes they are split into.

    Args:
        inputs: of the model; `position_ids` restart at 0 with each sample of a packed row.
        labels: [B, T], -100 where there is nothing to predict.
    """
    answers = (labels != IGNORED).float()
    answers[:, 0] = 0  # nothing precedes
    if (positions := inputs.get("position_ids")) is not None:
        text = positions[0] if positions.ndim == 3 else positions  # mrope's first is the text's
        sample, valid = (text == 0).cumsum(1) - 1, torch.ones_like(answers)
    else:
        sample, valid = torch.zeros_like(labels), inputs["attention_mask"].float()
    none = answers.new_zeros(len(labels), int(sample.max()) + 1)  # [B, samples]
    share = none.scatter_add(1, sample, answers) / none.scatter_add(1, sample, valid).clamp_min(1)
    return valid * share.gather(1, sample)
