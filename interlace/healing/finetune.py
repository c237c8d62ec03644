"""End-to-end healing: the planned layers learn from answers, all other weights keep their bytes.

With `finetune.train_lm_head` the head's weight learns as well.

The recipe is INTERLACE's (arXiv 2511.19676, section 4), with DeepSpeed ZeRO or without, in one
process or many. Nothing else is computed: there is no graph below the lowest tuned layer, there are
logits at answer tokens only, and rows have no padding where the family can pack.

Frozen weights need no check afterwards: they get no gradient, no optimizer holds them, and the
tuned checkpoint takes them from the pruned one's files.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.replace import with_tensors
from interlace.errors import ContractError
from interlace.healing.end_to_end import EndToEnd
from interlace.model.answer_loss import AnswerLoss
from interlace.model.decoder import decoder_layers, decoder_prefix
from interlace.model.open import attention, auto_model
from interlace.params.healing import Recipe
from interlace.plan.record import Plan
from interlace.printable import say
from interlace.system import distributed
from interlace.training import loop, lora, packing
from interlace.training.curve import write_curve
from interlace.training.deepspeed import join, partitioned_loading, zero_config
from interlace.training.engines import Engine, Plain, Zero, gathered_weight, tuned_parameters
from interlace.training.head import head_weight, stored_head
from interlace.training.rows import TrainingBatches, TrainingRows, collator, update_count
from interlace.training.schedule import CosineSchedule

Objective = Callable[[nn.Module], nn.Module]  # a model -> a module that returns its summed loss
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

    An interrupted run resumes from its last resume point.

    Args:
        pruned: the checkpoint that `export` wrote.
        train: folder of rows that `sample` wrote.
        out: folder for the tuned checkpoint; files without tuned layers are the pruned one's.
        curve: CSV file for loss, learning rate, gradient norm and tokens by step.
        plan: which layers are tuned.
        params: the recipe.
        seed: of the order of rows.
        scratch: folder for resume points; use another one whenever inputs or params change.
        objective: makes the loss to train on, summed over answer tokens, from the model.

    Raises:
        InputError: DeepSpeed is asked for and not installed, a row cannot be used, or a resume
            point cannot be written.
        ContractError: the loss is not finite.
    """
    distributed.meet()
    if not (plan.tune and params.max_steps):  # nothing to train: the pruned model is the tuned one
        if distributed.process_rank() == 0:
            write_curve(curve, [], CURVE)
            with_tensors(pruned.folder, {}, out)
        distributed.barrier()
        return
    stored_names = StoredNames(
        pruned.layers.prefix, stored_head(pruned) if params.train_lm_head else None
    )
    positions = _packed_positions(pruned, params)
    processor = pruned.open_processor(min_pixels=params.min_pixels, max_pixels=params.max_pixels)
    rows = TrainingRows(train, processor, params.max_length, scratch / "rows")
    batches = TrainingBatches.split(len(rows), seed, params, distributed.world_size())
    flash = positions is not None and flash_attention(params)
    join(params)
    model, engine = _open(pruned, plan, params, batches, flash, objective)
    collate = collator(
        processor,
        positions,
        one_row=flash,
        blank=params.zero_stage == 3 and batches.processes > 1,
    )
    steps = update_count(params, len(rows))
    updates = loop.train(
        EndToEnd(model, engine, plan.tuned_positions, params),
        rows,
        batches,
        collate,
        schedule=CosineSchedule(params.learning_rate, steps, params.warmup_ratio),
        params=params,
        scratch=scratch,
    )
    tuned = _tuned_tensors(model, plan, stored_names)
    if distributed.process_rank() == 0:
        write_curve(curve, updates, CURVE, log_steps=params.log_steps, averaged=["loss"])
        with_tensors(pruned.folder, tuned, out)
    distributed.barrier()


def freeze_all_but(model: nn.Module, positions: list[int]) -> None:
    """Freeze all parameters except those of the decoder layers at some positions."""
    model.requires_grad_(False)
    for position in positions:
        for parameter in decoder_layers(model)[position].parameters():
            parameter.requires_grad_(True)


def _packed_positions(pruned: Checkpoint, params: Recipe) -> packing.Positions | None:
    """Return the position ids of packed samples, or `None` where samples are padded."""
    if not params.packing:
        return None
    config = pruned.transformers_config()
    if packing.packs(config):
        return packing.sample_positions(pruned)
    if distributed.process_rank() == 0:
        say(f"finetune: {config.model_type}: samples are padded, not packed")
    return None


def flash_attention(params: Recipe) -> bool:
    """Return True if packed rows can be trained with flash attention, which separates samples."""
    dtype = str(_dtype(params)).removeprefix("torch.")
    return attention("auto", dtype, on_gpu=torch.cuda.is_available()) == "flash_attention_2"


def _open(
    pruned: Checkpoint,
    plan: Plan,
    params: Recipe,
    batches: TrainingBatches,
    flash: bool,
    objective: Objective,
) -> tuple[nn.Module, Engine]:
    """Open the model with all but the trained weights frozen, and the engine that updates these."""
    config = zero_config(params, _dtype(params), batches.passes)
    options = {"attn_implementation": "flash_attention_2"} if flash else {}
    with partitioned_loading(config) if params.zero_stage else nullcontext():
        model = auto_model(pruned.folder).from_pretrained(
            pruned.folder,
            dtype=_dtype(params),
            use_safetensors=True,
            trust_remote_code=pruned.trust_remote_code,
            **options,
        )
    freeze_all_but(model, plan.tuned_positions)
    if params.train_lm_head:
        head_weight(model).requires_grad_(True)
    if params.lora_rank:
        torch.manual_seed(batches.seed)  # the same initial adapters in every process
        lora.adapt(model, plan.tuned_positions, params)
    model.train()
    if params.zero_stage:
        return model, Zero(objective(model), params, config)
    return model, Plain(objective(model.to(distributed.device())), params)


@dataclass(frozen=True)
class StoredNames:
    """The names of trained weights in the checkpoint's files.

    Attributes:
        layers: of the decoder's list of layers.
        head: of the head's weight; `None` if it is frozen.
    """

    layers: str
    head: str | None


def _tuned_tensors(model: nn.Module, plan: Plan, stored: StoredNames) -> dict[str, Tensor]:
    """Return the trained values by the names they are stored under."""
    values = lora.merged_weights(model, gathered_weight)
    for name, parameter in tuned_parameters(model).items():
        if not lora.is_adapter(name):
            with gathered_weight(parameter):
                values[name] = parameter.detach().cpu().clone()
    prefix, tuned = f"{decoder_prefix(model)}.", {}
    if stored.head:
        (head,) = {name for name in values if not name.startswith(prefix)}
        tuned[stored.head] = values.pop(head)
    layers = {int(name.removeprefix(prefix).split(".")[0]) for name in values}
    if layers != set(plan.tuned_positions):
        raise ContractError(f"layers {sorted(layers)} were tuned, not {plan.tuned_positions}")
    return tuned | {
        f"{stored.layers}.{name.removeprefix(prefix)}": value for name, value in values.items()
    }


def _dtype(params: Recipe) -> torch.dtype:
    auto = "bfloat16" if torch.cuda.is_available() else "float32"
    dtype: torch.dtype = getattr(torch, auto if params.dtype == "auto" else params.dtype)
    return dtype
