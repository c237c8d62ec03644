"""Heal tuned layers where they are, against the dense model: no gradient through the decoder.

The survivors of a segment learn what it does in the dense decoder (`segments.segments`):

    min  sum_t || f(x_lo[t]) - y_hi[t] ||^2  /  sum_t || y_hi[t] - x_lo[t] ||^2

over the valid tokens t of an update, with the dense model's own masks and position embeddings; f is
one survivor, or several in order. One dense forward pass feeds all segments; a graph is never
larger than one segment's.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from interlace import distributed as processes
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.replace import with_tensors
from interlace.errors import InputError
from interlace.healing.local_layers import Repair, open_survivors, resume, save, stored_weights
from interlace.healing.local_targets import pair, recorded_for, visual_features
from interlace.model import chat
from interlace.model.states import Recording, forward
from interlace.outputs import whole
from interlace.params.healing import Finetune
from interlace.plan.record import Plan
from interlace.plan.segments import segments
from interlace.training.engines import gathered
from interlace.training.rows import (
    NotFiniteError,
    Pass,
    Schedule,
    TrainingRows,
    collate,
    passes,
    schedule,
    stopped,
)

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
) -> None:
    """Write the pruned checkpoint with locally healed survivors.

    A run that was interrupted goes on from its last resume point. With several processes each
    takes its share of every batch, and gradients are summed.

    Args:
        dense: the dense checkpoint.
        pruned: the checkpoint to start from, plain or compensated.
        train: folder of rows that `sample` wrote.
        out: folder for the healed checkpoint.
        curve: CSV file for the relative error by step, mean and by segment.
        plan: which layers were dropped and are tuned.
        params: of `finetune`; `local_steps` updates of `batch_size` rows.
        seed: of the order of rows.
        scratch: folder for resume points; must be another one whenever inputs or params change.

    Raises:
        InputError: no tuned layer lies beside a dropped one, or a row cannot be used.
        ContractError: an error is not finite; with which samples.
    """
    if not segments(plan):
        raise InputError(
            f"heal.local_steps = {params.local_steps}: no tuned layer lies beside a dropped"
            " one; set it to 0, or select.tuned to planned or all"
        )
    processes.meet()
    model = dense.open_model(dtype=params.dtype)
    processor = dense.open_processor(min_pixels=params.min_pixels, max_pixels=params.max_pixels)
    repairs = open_survivors(pruned, model, plan, params)
    rows = TrainingRows(train, processor, params.max_length, scratch / "rows")
    shares = schedule(len(rows), seed, params, processes.world_size())
    history = train_segments(model, repairs, rows, shares, params, scratch)
    if processes.process_rank() == 0:
        write_curve(curve, history)
        with_tensors(pruned.folder, dict(stored_weights(repairs, pruned.layers)), out)
    processes.barrier()


def squared_errors(found: Tensor, target: Tensor, given: Tensor, valid: Tensor) -> Tensor:
    """Squared error, and what it is relative to, summed over valid tokens.

    Args:
        found: `f(x_lo)`, [B, T, d].
        target: `y_hi`, [B, T, d].
        given: `x_lo`, [B, T, d].
        valid: [B, T], false for padding.

    Returns:
        [2] float32: `sum ||f(x_lo) - y_hi||^2` and `sum ||y_hi - x_lo||^2`.
    """
    wanted = target.float()[valid]  # [N, d]
    error = (found.float()[valid] - wanted).square().sum()
    return torch.stack([error, (wanted - given.float()[valid]).square().sum()])


def train_segments(
    model: nn.Module,
    repairs: Sequence[Repair],
    rows: TrainingRows,
    shares: Schedule,
    params: Finetune,
    scratch: Path,
) -> list[dict[str, float]]:
    """Run all updates from the last resume point on; returns the curve's points."""
    done, history = resume(repairs, scratch)
    steps, first = params.local_steps, processes.process_rank() == 0
    begin, seen = time.perf_counter(), 0  # tokens of this process
    made = collate(rows.processor, None, one_row=False, blank=False)
    ahead = passes(
        rows, shares, made,
        steps=range(done, steps), process=processes.process_rank(), workers=params.workers,
    )  # fmt: skip
    with tqdm(
        total=steps, initial=done, unit="step", desc="local healing", disable=not first
    ) as progress:
        for step, loaded in enumerate(ahead, done):
            rate = params.local_learning_rate * share_of_peak(step, steps, params.warmup_ratio)
            try:
                errors = update(model, repairs, loaded, params, rate)
            except NotFiniteError as error:
                raise stopped(error, rows, shares, step, scratch) from None
            mean = math.fsum(errors.values()) / len(errors)
            if step == 0 or (step + 1) % params.log_steps == 0 or step + 1 == steps:
                point = {"step": step + 1, "relative_error": mean, "learning_rate": rate}
                history.append(point | {f"layer_{name}": error for name, error in errors.items()})
            seen += sum(one.tokens for one in loaded)
            speed = processes.world_size() * seen / (time.perf_counter() - begin)
            progress.set_postfix_str(f"error {mean:.4f}, {speed:,.0f} tokens/s", refresh=False)
            progress.update()
            if (step + 1) % params.save_steps == 0 and first:
                save(repairs, step + 1, history, scratch)
    return history


def update(
    model: nn.Module,
    repairs: Sequence[Repair],
    loaded: Sequence[Pass],
    params: Finetune,
    rate: float,
) -> dict[str, float]:
    """One update of every segment; returns the relative error of each before it, by survivors.

    Raises:
        NotFiniteError: an error is not finite.
    """
    device = next(model.parameters()).device
    sums = torch.zeros(len(repairs), 2, device=device)
    broken = torch.zeros(len(loaded), dtype=torch.int64, device=device)
    for number, one in enumerate(loaded):
        batch = {name: value.to(device) for name, value in one.inputs.items()}
        found = accumulate(model, repairs, batch)
        broken[number] = ~found.isfinite().all()
        sums += found
    _sum_over_processes([sums])
    names = ["+".join(map(str, repair.task.segment.survivors)) for repair in repairs]
    if places := [(int(p), int(n)) for p, n in gathered(broken).nonzero()]:
        (where,) = (~sums.isfinite().all(dim=1)).nonzero(as_tuple=True)
        what = f"local healing: the error of layer {names[int(where[0])]}"
        raise NotFiniteError(places, what, "heal.local_learning_rate")
    for repair, (_, scale) in zip(repairs, sums, strict=True):
        _apply(repair, 1 / max(float(scale), torch.finfo().tiny), rate, params)
    return {name: float(error / scale) for name, (error, scale) in zip(names, sums, strict=True)}


def accumulate(model: nn.Module, repairs: Sequence[Repair], batch: chat.Inputs) -> Tensor:
    """Add one batch's gradients of the squared errors; returns their sums, [segments, 2]."""
    valid = batch["attention_mask"].bool()  # [B, T]
    with torch.no_grad(), recorded_for([repair.task for repair in repairs], model) as states:
        forward(model, batch)
    device, dtype = valid.device.type, next(model.parameters()).dtype
    sums = []
    for repair in repairs:
        given, target = pair(repair.task, states)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            found = in_order(repair, given, states)
        errors = squared_errors(found, target, given, valid)
        errors[0].backward()  # type: ignore[no-untyped-call]
        sums.append(errors.detach())
    return torch.stack(sums)


def in_order(repair: Repair, state: Tensor, states: Recording) -> Tensor:
    """What the survivors of a segment make of its input, one after the other, [B, T, d]."""
    job = repair.task
    for layer, dense_layer, entering in zip(
        repair.layers, job.segment.survivors, ((), *job.between), strict=True
    ):
        for e in entering:
            state = state + visual_features(states, e)
        state = states.arguments[dense_layer].output(layer, state)
    return state


def _apply(repair: Repair, scale: float, rate: float, params: Finetune) -> None:
    """Take one step of AdamW on the relative error; gradients are clipped segment by segment."""
    weights = [weight for weight in repair.layers.parameters() if weight.grad is not None]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    _sum_over_processes(gradients)
    for gradient in gradients:
        gradient.mul_(scale)
    nn.utils.clip_grad_norm_(weights, params.max_grad_norm, foreach=False)
    for group in repair.optimizer.param_groups:
        group["lr"] = rate
    repair.optimizer.step()
    repair.optimizer.zero_grad(set_to_none=True)


def share_of_peak(step: int, steps: int, warmup_ratio: float) -> float:
    """The learning rate of a step, counted from 0: linear warm-up, then half a cosine to 0."""
    warmup = math.ceil(warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def _sum_over_processes(tensors: Sequence[Tensor]) -> None:
    """Add tensors up over all processes, in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)


def write_curve(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write the points as CSV: the columns of `CURVE`, then one for each segment."""
    columns = dict.fromkeys((*CURVE, *(name for point in history for name in point)))
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(history)
