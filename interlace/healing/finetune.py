"""Heal the pruned model: only the planned layers move, everything else stays to the byte.

The recipe is INTERLACE's (arXiv 2511.19676, section 4), over DeepSpeed ZeRO or without, on one
process or many. Only what moves the planned layers is computed: no graph below the lowest of them,
logits at answer tokens alone, rows without padding.

Frozen weights need no check afterwards: they get no gradient, no optimizer holds them, and the
tuned checkpoint takes them from the pruned one's files.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from interlace import distributed as processes
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.replace import with_tensors
from interlace.errors import ContractError
from interlace.model.answer_loss import AnswerLoss
from interlace.model.decoder import decoder_layers, decoder_prefix
from interlace.model.open import attention
from interlace.outputs import whole
from interlace.params.healing import Recipe
from interlace.plan.record import Plan
from interlace.training import deepspeed as deepspeed_settings
from interlace.training import loop as training
from interlace.training import lora, packing
from interlace.training.engines import Engine, Plain, Zero, tuned_parameters, whole_weights
from interlace.training.loop import Update
from interlace.training.rows import Schedule, TrainingRows, collate, schedule

Objective = Callable[[nn.Module], nn.Module]  # a model -> a module that gives its summed loss
CURVE = ("step", "loss", "learning_rate", "grad_norm", "tokens")


def finetune(
    pruned: Checkpoint,
    train: Path,
    out: Path,
    curve: Path,
    *,
    plan: Plan,
    params: Recipe,
    seed: int,
    scratch: Path,
    objective: Objective = AnswerLoss,
) -> None:
    """Train the planned layers of a pruned checkpoint.

    A run that was interrupted goes on from its last resume point.

    Args:
        pruned: the checkpoint that `export` wrote.
        train: folder of rows that `sample` wrote.
        out: folder for the tuned checkpoint; files without tuned layers are pruned's own.
        curve: CSV file for loss, learning rate, gradient norm and tokens seen by step.
        plan: which layers are tuned.
        params: the recipe.
        seed: of the order of rows.
        scratch: folder for resume points; must be another one whenever inputs or params change.
        objective: makes the loss to train on, summed over answer tokens, from the model.

    Raises:
        InputError: DeepSpeed is asked for and not installed, a row cannot be used, or a resume
            point cannot be written.
        ContractError: the loss is not finite.
    """
    first = processes.process_rank() == 0
    processes.meet()
    if not (plan.tune and params.max_steps):  # nothing to train: pruned is tuned
        if first:
            write_curve(curve, [], params.log_steps)
            with_tensors(pruned.folder, {}, out)
        processes.barrier()
        return
    stored_prefix = pruned.layers.prefix
    positions = _positions(pruned, params)
    processor = pruned.open_processor(min_pixels=params.min_pixels, max_pixels=params.max_pixels)
    rows = TrainingRows(train, processor, params.max_length, scratch / "rows")
    shares = schedule(len(rows), seed, params, processes.world_size())
    flash = positions is not None and flash_attention(params)
    deepspeed_settings.join(params)
    model, engine = _opened(pruned, plan, params, shares, flash, objective)
    made = collate(
        processor,
        positions,
        one_row=flash,
        blank=params.zero_stage == 3 and shares.processes > 1,
    )
    updates = training.train(
        model,
        engine,
        rows,
        shares,
        made,
        tuned=plan.tuned_positions,
        params=params,
        scratch=scratch,
    )
    changed = _tuned_tensors(model, plan, stored_prefix)
    if first:
        write_curve(curve, updates, params.log_steps)
        with_tensors(pruned.folder, changed, out)
    processes.barrier()


def freeze_all_but(model: nn.Module, positions: list[int]) -> None:
    """Freeze every parameter but those of the decoder layers at some positions."""
    model.requires_grad_(False)
    for position in positions:
        for parameter in decoder_layers(model)[position].parameters():
            parameter.requires_grad_(True)


def _positions(pruned: Checkpoint, params: Recipe) -> packing.Positions | None:
    """How to place samples in shared rows; none where they do not share."""
    if not params.packing:
        return None
    config = pruned.transformers_config()
    if packing.packs(config):
        return packing.sample_positions(pruned)
    if processes.process_rank() == 0:
        tqdm.write(f"finetune: {config.model_type}: samples are padded, not packed")
    return None


def flash_attention(params: Recipe) -> bool:
    """Whether packed rows can be trained with flash attention, which keeps samples apart itself."""
    dtype = str(_dtype(params)).removeprefix("torch.")
    return attention("auto", dtype, on_gpu=torch.cuda.is_available()) == "flash_attention_2"


def _opened(
    pruned: Checkpoint,
    plan: Plan,
    params: Recipe,
    shares: Schedule,
    flash: bool,
    objective: Objective,
) -> tuple[nn.Module, Engine]:
    """The model with all but the planned layers frozen, and what updates these."""
    from transformers import AutoModelForImageTextToText

    config = deepspeed_settings.zero_config(params, _dtype(params), shares.passes)
    extra = {"attn_implementation": "flash_attention_2"} if flash else {}
    with deepspeed_settings.split_as_loaded(config) if params.zero_stage else nullcontext():
        model = AutoModelForImageTextToText.from_pretrained(
            pruned.folder,
            dtype=_dtype(params),
            use_safetensors=True,
            trust_remote_code=pruned.trust_remote_code,
            **extra,
        )
    freeze_all_but(model, plan.tuned_positions)
    if params.lora_rank:
        torch.manual_seed(shares.seed)  # adapters start alike in every process
        lora.adapt(model, plan.tuned_positions, params)
    model.train()
    if params.zero_stage:
        return model, Zero(objective(model), params, config)
    return model, Plain(objective(model.to(processes.device())), params)


def _tuned_tensors(model: nn.Module, plan: Plan, stored_prefix: str) -> dict[str, Tensor]:
    """Trained values by the names they are stored under."""
    prefix = decoder_prefix(model)
    found = lora.merged(model, whole_weights)
    for name, parameter in tuned_parameters(model).items():
        if not lora.is_adapter(name):
            with whole_weights(parameter):
                found[name] = parameter.detach().cpu().clone()
    tuned = {stored_prefix + name.removeprefix(prefix): value for name, value in found.items()}
    layers = {int(name.removeprefix(stored_prefix).split(".")[1]) for name in tuned}
    if layers != set(plan.tuned_positions):
        raise ContractError(f"layers {sorted(layers)} were tuned, not {plan.tuned_positions}")
    return tuned


def write_curve(path: Path, updates: Sequence[Update], every: int) -> None:
    """Write the first update, every so many and the last as CSV, the columns of `CURVE`.

    Args:
        path: the file.
        updates: all of them, in order.
        every: updates between points; a point's loss is the mean since the point before.
    """
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CURVE)
        writer.writeheader()
        since: list[float] = []
        for update in updates:
            since.append(update.loss)
            if update.step in (1, len(updates)) or update.step % every == 0:
                row: dict[str, Any] = update._asdict() | {"loss": sum(since) / len(since)}
                writer.writerow(row)
                since = []


def _dtype(params: Recipe) -> torch.dtype:
    auto = "bfloat16" if torch.cuda.is_available() else "float32"
    dtype: torch.dtype = getattr(torch, auto if params.dtype == "auto" else params.dtype)
    return dtype
