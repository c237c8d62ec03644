"""Local healing: tuned layers learn from the dense model, without gradients through the decoder.

The survivors of a segment learn the dense segment's function (`plan.segments.segments`):

    min  sum_t w[t] || f(x_lo[t]) - y_hi[t] ||^2  /  sum_t w[t] || y_hi[t] - x_lo[t] ||^2

over the valid tokens t of an update, with w[t] = 1 / || y_hi[t] ||^2 and the dense model's own
masks and position embeddings; f is one survivor, or several in order. By the weights each token
counts by its relative error, as in compensation: without them the survivors of a pretrained decoder
learn the attention sink alone, whose state is hundreds of times as long as the others. One dense
forward pass serves all segments, and a graph spans one segment at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.replace import with_tensors
from interlace.errors import InputError
from interlace.healing.local_layers import LocalSegment, open_segments, stored_weights
from interlace.healing.local_targets import pair, recorded_for, visual_features
from interlace.model import chat
from interlace.model.states import Recording, forward
from interlace.params.healing import Finetune
from interlace.plan.record import Plan
from interlace.plan.segments import segments
from interlace.system import distributed
from interlace.training import loop
from interlace.training.curve import Curve
from interlace.training.engines import all_gather, optimizer_tensors, restore_optimizer
from interlace.training.rows import Pass, TrainingBatches, TrainingRows, collator
from interlace.training.schedule import CosineSchedule

CURVE = ("step", "relative_error", "learning_rate")


def heal_locally(
    dense: Checkpoint,
    pruned: Checkpoint,
    train: Path,
    out: Path,
    curve: Path,
    *,
    plan: Plan,
    params: Finetune,
    seed: int,
    scratch: Path,
    logs: Path | None = None,
) -> None:
    """Write the pruned checkpoint with locally healed survivors.

    An interrupted run resumes from its last resume point. With several processes each takes its
    share of every batch, and gradients are summed.

    Args:
        dense: the dense checkpoint.
        pruned: the checkpoint to start from, plain or compensated.
        train: folder of rows that `sample` wrote.
        out: folder for the healed checkpoint.
        curve: CSV file for the relative error by step, mean and by segment.
        plan: which layers were dropped and are tuned.
        params: of `finetune`; `local_steps` updates of `batch_size` rows.
        seed: of the order of rows.
        scratch: folder for resume points; use another one whenever inputs or params change.
        logs: folder for `finetune.report_to`; `None`: nothing is reported.

    Raises:
        InputError: no tuned layer lies beside a dropped one, or a row cannot be used.
        ContractError: an error is not finite; the message names the samples.
    """
    if not segments(plan):
        raise InputError(
            f"heal.local_steps = {params.local_steps}: no tuned layer lies beside a dropped"
            " one; set it to 0, or select.tuned to planned or all"
        )
    distributed.meet()
    model = dense.open_model(dtype=params.dtype)
    processor = dense.open_processor(min_pixels=params.min_pixels, max_pixels=params.max_pixels)
    opened = open_segments(pruned, model, plan, params)
    learner = LocalHealing(model, opened, params.max_grad_norm)
    rows = TrainingRows(train, processor, params.max_length, scratch / "rows")
    columns = [*CURVE, *(learner.column(segment) for segment in learner.segments)]
    loop.train(
        learner,
        rows,
        TrainingBatches.split(len(rows), seed, params, distributed.world_size()),
        collator(processor, None, one_row=False, blank=False),
        schedule=CosineSchedule(
            params.local_learning_rate, params.local_steps, params.warmup_ratio, skip_zero=True
        ),
        params=params,
        scratch=scratch,
        curve=Curve(curve, columns, steps=params.local_steps, params=params, logs=logs),
    )
    if distributed.process_rank() == 0:
        tuned = dict(stored_weights(learner.segments, pruned.layers))
        with_tensors(pruned.folder, tuned, out)
    distributed.barrier()


class LocalHealing:
    """See `training.loop.Learner`.

    An update's values are the relative error of each segment before it, and their mean.
    """

    title = "local healing"
    objective = "relative_error"
    rate_parameter = "heal.local_learning_rate"

    def __init__(
        self, model: nn.Module, segments: Sequence[LocalSegment], max_grad_norm: float
    ) -> None:
        """Take the models.

        Args:
            model: the dense model.
            segments: the tuned layers.
            max_grad_norm: to clip each segment's gradient to.
        """
        self.model, self.segments, self.max_grad_norm = model, segments, max_grad_norm

    @staticmethod
    def column(segment: LocalSegment) -> str:
        """Return the name of a segment's relative error among the values."""
        return f"layer_{segment.name}"

    def update(self, passes: Sequence[Pass], learning_rate: float) -> dict[str, float]:
        """See `training.loop.Learner`."""
        device = next(self.model.parameters()).device
        sums = torch.zeros(len(self.segments), 2, device=device)
        not_finite = torch.zeros(len(passes), dtype=torch.int64, device=device)
        for number, one_pass in enumerate(passes):
            batch = {name: value.to(device) for name, value in one_pass.inputs.items()}
            pass_sums = self._accumulate(batch)
            not_finite[number] = ~pass_sums.isfinite().all()
            sums += pass_sums
        _sum_over_processes([sums])
        if indices := [(int(p), int(n)) for p, n in all_gather(not_finite).nonzero()]:
            (rows,) = (~sums.isfinite().all(dim=1)).nonzero(as_tuple=True)
            layer = self.segments[int(rows[0])].name
            raise loop.NotFiniteError(indices, f"local healing: the error of layer {layer}")
        for segment, (_, scale) in zip(self.segments, sums, strict=True):
            factor = 1 / max(float(scale), torch.finfo().tiny)
            self._step(segment, factor, learning_rate)
        errors = {
            self.column(segment): float(error / scale)
            for segment, (error, scale) in zip(self.segments, sums, strict=True)
        }
        return {"relative_error": math.fsum(errors.values()) / len(errors)} | errors

    def _accumulate(self, batch: chat.Inputs) -> Tensor:
        """Add a batch's gradients of the squared errors; return their sums, [segments, 2]."""
        valid = batch["attention_mask"].bool()  # [B, T]
        targets = [segment.target for segment in self.segments]
        with torch.no_grad(), recorded_for(targets, self.model) as states:
            forward(self.model, batch)
        device, dtype = valid.device.type, next(self.model.parameters()).dtype
        sums = []
        for segment in self.segments:
            start, goal = pair(segment.target, states)
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                output = run_segment(segment, start, states)
            errors = squared_errors(output, goal, start, valid)
            errors[0].backward()  # type: ignore[no-untyped-call]
            sums.append(errors.detach())
        return torch.stack(sums)

    def _step(self, segment: LocalSegment, factor: float, learning_rate: float) -> None:
        """Take a step of AdamW on a segment's relative error.

        Args:
            segment: with gradients of its squared error.
            factor: turns the squared error into the relative one.
            learning_rate: of the step.
        """
        weights = [weight for weight in segment.layers.parameters() if weight.grad is not None]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        _sum_over_processes(gradients)
        for gradient in gradients:
            gradient.mul_(factor)
        nn.utils.clip_grad_norm_(weights, self.max_grad_norm, foreach=False)
        for group in segment.optimizer.param_groups:
            group["lr"] = learning_rate
        segment.optimizer.step()
        segment.optimizer.zero_grad(set_to_none=True)

    def states(self) -> Iterator[dict[str, Tensor]]:
        """See `training.loop.Learner`: a file per segment."""
        return (optimizer_tensors(s.weights(), s.optimizer) for s in self.segments)

    def restore(self, states: Iterable[Mapping[str, Tensor]], step: int) -> None:
        """See `training.loop.Learner`."""
        for segment, tensors in zip(self.segments, states, strict=True):
            restore_optimizer(segment.weights(), segment.optimizer, tensors)


def run_segment(segment: LocalSegment, state: Tensor, states: Recording) -> Tensor:
    """Return the output of a segment's survivors, run one after the other, [B, T, d].

    Args:
        segment: the tuned layers.
        state: the segment's input, [B, T, d].
        states: of the dense forward pass.
    """
    target = segment.target
    for layer, dense_layer, features in zip(
        segment.layers, target.segment.survivors, ((), *target.between), strict=True
    ):
        for feature_layer in features:
            state = state + visual_features(states, feature_layer)
        state = states.arguments[dense_layer].output(layer, state)
    return state


def squared_errors(output: Tensor, goal: Tensor, start: Tensor, valid: Tensor) -> Tensor:
    """Return the squared error, and what it is relative to, summed over valid tokens.

    Each token is divided by the squared length of its target.

    Args:
        output: `f(x_lo)`, [B, T, d].
        goal: `y_hi`, [B, T, d].
        start: `x_lo`, [B, T, d].
        valid: [B, T], false for padding.

    Returns:
        [2] float32: `sum w ||f(x_lo) - y_hi||^2` and `sum w ||y_hi - x_lo||^2`, `w = 1/||y_hi||^2`.
    """
    valid_goal = goal.float()[valid]  # [N, d]
    length = valid_goal.square().sum(-1).clamp_min(torch.finfo().tiny)  # [N]
    sums = [
        ((state.float()[valid] - valid_goal).square().sum(-1) / length).sum()
        for state in (output, start)
    ]
    return torch.stack(sums)


def _sum_over_processes(tensors: Sequence[Tensor]) -> None:
    """Add tensors up over all processes, in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)
