"""End-to-end healing: the planned layers learn from answers, all other weights keep their bytes.

With `finetune.also` the projector, the head or the decoder's norms learn as well, or alone.

The recipe is INTERLACE's (arXiv 2511.19676, section 4), with DeepSpeed ZeRO or without, in one
process or many. Nothing else is computed: there is no graph below the lowest trained weight, there
are logits at answer tokens only, and rows have no padding where the family can pack.

Frozen weights need no check afterwards: they get no gradient, no optimizer holds them, and the
tuned checkpoint takes them from the pruned one's files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.replace import as_stored, with_tensors
from interlace.healing.end_to_end import EndToEnd
from interlace.model.answer_loss import AnswerLoss
from interlace.model.attention import PACKAGES, takes_one_row
from interlace.model.decoder import decoder_layers
from interlace.model.linear_attention import check_kernels, separate_samples
from interlace.model.open import attention, auto_model
from interlace.params.healing import Also, Recipe
from interlace.plan.record import Plan
from interlace.printable import say
from interlace.system import distributed
from interlace.training import loop, lora, packing
from interlace.training.also import unfreeze
from interlace.training.curve import Curve
from interlace.training.deepspeed import join, partitioned_loading, zero_config
from interlace.training.engines import Engine, Plain, Zero, gathered_weight, tuned_parameters
from interlace.training.reports import check_reports
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
    logs: Path | None = None,
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
        logs: folder for `finetune.report_to`; `None`: nothing is reported.
        objective: makes the loss to train on, summed over answer tokens, from the model.

    Raises:
        InputError: DeepSpeed or a library to report to is not installed, a row cannot be used, or
            the curve or a resume point cannot be written.
        ContractError: the loss is not finite.
    """
    distributed.meet()
    check_reports(params)
    if not (params.max_steps and (plan.tune or params.also)):  # the pruned model is the tuned one
        Curve(curve, CURVE, steps=0, params=params).write([])
        if distributed.process_rank() == 0:
            with_tensors(pruned.folder, {}, out)
        distributed.barrier()
        return
    blueprint = _blueprint(pruned, plan, params)
    positions = _packed_positions(pruned, params)
    processor = pruned.open_processor(min_pixels=params.min_pixels, max_pixels=params.max_pixels)
    rows = TrainingRows(train, processor, params.max_length, scratch / "rows")
    batches = TrainingBatches.split(len(rows), seed, params, distributed.world_size())
    implementation = _attention(pruned, params)
    one_row = positions is not None and takes_one_row(implementation)
    if positions and not one_row:
        _say_what_packs_better()
    join(params)
    model, engine = _open(pruned, plan, params, batches, implementation, objective)
    collate = collator(
        processor,
        positions,
        one_row=one_row,
        blank=_images_in_all_passes(params, batches.processes),
    )
    steps = update_count(params, len(rows))
    loop.train(
        EndToEnd(model, engine, params),
        rows,
        batches,
        collate,
        schedule=CosineSchedule(params.learning_rate, steps, params.warmup_ratio),
        params=params,
        scratch=scratch,
        curve=Curve(curve, CURVE, steps=steps, params=params, averaged=["loss"], logs=logs),
    )
    tuned = _tuned_weights(model)
    if distributed.process_rank() == 0:
        with_tensors(pruned.folder, as_stored(pruned, blueprint, tuned), out)
    distributed.barrier()


def _blueprint(pruned: Checkpoint, plan: Plan, params: Recipe) -> nn.Module:
    """Return the model without its weights, with only those that are trained unfrozen.

    Raises:
        InputError: what is trained is not in the model, or could not be written to its files.
    """
    blueprint: nn.Module = pruned.check_opens()
    freeze_all_but(blueprint, plan.tuned_positions, params.also)
    as_stored(pruned, blueprint, tuned_parameters(blueprint))
    return blueprint


def freeze_all_but(model: nn.Module, positions: list[int], also: Sequence[Also] = ()) -> None:
    """Freeze all parameters but those of the decoder layers at some positions, and `also`'s.

    Raises:
        InputError: the model has no weights that `also` names.
    """
    model.requires_grad_(False)
    for position in positions:
        for parameter in decoder_layers(model)[position].parameters():
            parameter.requires_grad_(True)
    unfreeze(model, also)


def set_training(model: nn.Module) -> nn.Module:
    """Set a model to training, without batch norms: frozen towers keep their statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def _images_in_all_passes(params: Recipe, processes: int) -> bool:
    """Return True where a pass without images needs a blank one.

    Processes that share weights must all run the same modules. A projector must get a gradient from
    all passes: it may be all that is trained, and processes sum their gradients.
    """
    return "projector" in params.also or (params.zero_stage == 3 and processes > 1)


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


def _attention(pruned: Checkpoint, params: Recipe) -> str | None:
    return attention(
        pruned.folder,
        params.attn_implementation,
        str(_dtype(params)).removeprefix("torch."),
        trust_remote_code=pruned.trust_remote_code,
    )


def _say_what_packs_better() -> None:
    """Say which packages would lay all samples of a pass in one row."""
    if torch.cuda.is_available() and distributed.process_rank() == 0:
        packages = ", ".join(PACKAGES.values())
        say(
            "finetune: packed rows are as long as the longest sample; in 16 bits and with one of"
            f" the packages {packages}, each pass would be one row without padding",
            error=True,
        )


def _open(
    pruned: Checkpoint,
    plan: Plan,
    params: Recipe,
    batches: TrainingBatches,
    implementation: str | None,
    objective: Objective,
) -> tuple[nn.Module, Engine]:
    """Open the model with all but the trained weights frozen, and the engine that updates these."""
    config = zero_config(params, _dtype(params), batches.passes)
    with partitioned_loading(config) if params.zero_stage else nullcontext():
        model = auto_model(pruned.folder).from_pretrained(
            pruned.folder,
            dtype=_dtype(params),
            use_safetensors=True,
            trust_remote_code=pruned.trust_remote_code,
            attn_implementation=implementation,
        )
    check_kernels(model)
    freeze_all_but(separate_samples(model), plan.tuned_positions, params.also)
    if params.lora_rank:
        torch.manual_seed(batches.seed)  # the same initial adapters in every process
        lora.adapt(model, plan.tuned_positions, params)
    set_training(model)
    if params.zero_stage:
        return model, Zero(objective(model), params, config)
    return model, Plain(objective(model.to(distributed.device())), params)


def _tuned_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained values by name, on the CPU."""
    values = lora.merged_weights(model, gathered_weight)
    for name, parameter in tuned_parameters(model).items():
        if not lora.is_adapter(name):
            with gathered_weight(parameter):
                values[name] = parameter.detach().cpu().clone()
    return values


def _dtype(params: Recipe) -> torch.dtype:
    auto = "bfloat16" if torch.cuda.is_available() else "float32"
    dtype: torch.dtype = getattr(torch, auto if params.dtype == "auto" else params.dtype)
    return dtype
