"""Heal the pruned model: only the planned layers move, everything else stays to the byte.

The recipe is INTERLACE's (arXiv 2511.19676, section 4). transformers' Trainer runs it, over
DeepSpeed ZeRO on one process or many.
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interlace import chat, lora
from interlace.checkpoint import layers_prefix, tensor_files, with_tensors
from interlace.errors import ContractError, InputError
from interlace.families import decoder_layers, decoder_prefix
from interlace.outputs import whole
from interlace.params import Recipe
from interlace.plan import Plan

Loss = Callable[..., Tensor]  # of outputs, labels and num_items_in_batch
CURVE = ("step", "loss", "learning_rate", "grad_norm")


def finetune(
    pruned: Path,
    train: Path,
    out: Path,
    curve: Path,
    *,
    plan: Plan,
    params: Recipe,
    seed: int,
    scratch: Path,
    trust_remote_code: bool = False,
    objective: Callable[[nn.Module], Loss] | None = None,
) -> None:
    """Train the planned layers of a pruned checkpoint.

    A run that was interrupted goes on from its last resume point.

    Args:
        pruned: the checkpoint that `export` wrote.
        train: folder of rows that `sample` wrote.
        out: folder for the tuned checkpoint; files without tuned layers are pruned's own.
        curve: CSV file for loss, learning rate and gradient norm by step.
        plan: which layers are tuned.
        params: the recipe.
        seed: of the order of rows.
        scratch: folder for resume points; must be another one whenever inputs or params change.
        trust_remote_code: let the model's own code run.
        objective: makes the loss from the model; none: `token_mean`.

    Raises:
        InputError: DeepSpeed is asked for and not installed, or a row cannot be used.
        ContractError: a frozen parameter moved, or the loss is not finite.
    """
    if not plan.tune:  # nothing to train: the tuned checkpoint is the pruned one
        if os.environ.get("RANK", "0") == "0":
            write_curve(curve, [])
            with_tensors(pruned, {}, out)
        return
    import transformers

    stored_prefix = layers_prefix(pruned, tensor_files(pruned), trust_remote_code)
    arguments = _arguments(params, seed, scratch)  # before the model: ZeRO-3 splits it as it loads
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        pruned, dtype=_dtype(params), use_safetensors=True, trust_remote_code=trust_remote_code
    )
    model.config.use_cache = False
    freeze_all_but(model, plan.tuned_positions)
    if params.lora_rank:
        lora.adapt(model, plan.tuned_positions, params)
    before = frozen_digests(model)
    processor = chat.open_processor(
        pruned,
        min_pixels=params.min_pixels,
        max_pixels=params.max_pixels,
        trust_remote_code=trust_remote_code,
    )
    rows = TrainingRows(train, processor, params.max_length, scratch / "rows")
    pad = processor.tokenizer.pad_token_id or 0
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=lambda examples: chat.collate(examples, pad_token_id=pad),
        compute_loss_func=objective(model) if objective else token_mean,
        callbacks=[stop_when_not_finite()],
    )
    trainer.train(resume_from_checkpoint=_resume_point(scratch))
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    if moved := [name for name, digest in frozen_digests(model).items() if before[name] != digest]:
        raise ContractError(f"{len(moved)} frozen parameters moved, {moved[0]} among them")
    changed = _tuned_tensors(model, plan, stored_prefix)
    if trainer.is_world_process_zero():
        write_curve(curve, history)
        with_tensors(pruned, changed, out)
    trainer.accelerator.wait_for_everyone()


def token_mean(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """Cross-entropy per answer token of the whole update.

    The models' own loss averages each forward pass by itself, so that it would depend on how an
    update is split into passes and processes.

    Args:
        outputs: of the model; logits are [B, T, V].
        labels: [B, T], -100 where there is nothing to predict.
        num_items_in_batch: answer tokens of the update, over all passes and processes.
    """
    from transformers.loss.loss_utils import ForCausalLMLoss

    logits = outputs.logits
    loss: Tensor = ForCausalLMLoss(
        logits, labels, logits.shape[-1], num_items_in_batch=num_items_in_batch
    )
    return loss


def stop_when_not_finite() -> Any:
    """A Trainer callback that ends training at the first logged loss that is not finite."""
    from transformers import TrainerCallback

    class StopWhenNotFinite(TrainerCallback):  # type: ignore[misc]
        def on_log(self, *args: Any, logs: dict[str, Any], **kwargs: Any) -> None:
            if not math.isfinite(logs.get("loss", 0.0)):
                raise ContractError("the loss is not finite; lower finetune.learning_rate")

    return StopWhenNotFinite()


def freeze_all_but(model: nn.Module, positions: list[int]) -> None:
    """Freeze every parameter but those of the decoder layers at some positions."""
    model.requires_grad_(False)
    for position in positions:
        for parameter in decoder_layers(model)[position].parameters():
            parameter.requires_grad_(True)


def _gathered(parameter: nn.Parameter) -> Any:
    """A block in which a parameter that ZeRO-3 has split is whole."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([parameter])


def frozen_digests(model: nn.Module) -> dict[str, str]:
    """Hashes of the bytes of every frozen parameter, by name."""
    digests = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            with _gathered(parameter):
                raw = parameter.detach().cpu().contiguous().view(torch.uint8)
                digests[name] = hashlib.sha256(raw.numpy().data).hexdigest()
    return digests


def _tuned_tensors(model: nn.Module, plan: Plan, stored_prefix: str) -> dict[str, Tensor]:
    """Trained values by the names they are stored under."""
    prefix = decoder_prefix(model)
    found = lora.merged(model, _gathered)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ".lora_" not in name:
            with _gathered(parameter):
                found[name] = parameter.detach().cpu().clone()
    tuned = {stored_prefix + name.removeprefix(prefix): value for name, value in found.items()}
    layers = {int(name.removeprefix(stored_prefix).split(".")[1]) for name in tuned}
    if layers != set(plan.tuned_positions):
        raise ContractError(f"layers {sorted(layers)} were tuned, not {plan.tuned_positions}")
    return tuned


class TrainingRows(torch.utils.data.Dataset[chat.Inputs]):
    """Rows of the training set, encoded when they are asked for; they stay on disk until then."""

    def __init__(self, train: Path, processor: Any, max_length: int, cache: Path) -> None:
        from datasets import load_dataset

        files = [str(path) for path in sorted(train.glob("*.parquet"))]
        self.rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(cache))
        self.processor = processor
        self.max_length = max_length

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> chat.Inputs:
        row = self.rows[index]
        try:
            return chat.encode_training(self.processor, row, max_length=self.max_length)
        except InputError as error:
            raise InputError(f"sample {row['sample_id']} of {row['source']}: {error}") from None


def write_curve(path: Path, history: list[Mapping[str, Any]]) -> None:
    """Write the logged steps as CSV, the columns of `CURVE`."""
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CURVE, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(history)


def _dtype(params: Recipe) -> torch.dtype:
    auto = "bfloat16" if torch.cuda.is_available() else "float32"
    dtype: torch.dtype = getattr(torch, auto if params.dtype == "auto" else params.dtype)
    return dtype


def _arguments(params: Recipe, seed: int, scratch: Path) -> Any:
    from transformers import TrainingArguments

    micro, accumulation = split_batch(params, int(os.environ.get("WORLD_SIZE", "1")))
    if params.zero_stage:
        _prepare_deepspeed()
    return TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=params.epochs,
        max_steps=params.max_steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        learning_rate=params.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=params.warmup_ratio,  # below 1: a share of all steps
        weight_decay=params.weight_decay,
        max_grad_norm=params.max_grad_norm,
        bf16=_dtype(params) is torch.bfloat16,
        gradient_checkpointing=params.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        deepspeed=_zero(params.zero_stage) if params.zero_stage else None,
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=params.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        logging_first_step=True,
        logging_steps=params.log_steps,
        logging_nan_inf_filter=False,  # else a loss that is not finite is never seen
        save_steps=params.save_steps,
        save_total_limit=2,
        seed=seed,
        report_to="none",
    )


def split_batch(params: Recipe, processes: int) -> tuple[int, int]:
    """Rows per forward pass and passes per update, so that an update sees `batch_size` rows.

    Raises:
        InputError: the batch does not divide evenly.
    """
    share, rest = divmod(params.batch_size, processes)
    micro = min(params.micro_batch_size, max(share, 1))
    if rest or share % micro:
        raise InputError(
            f"finetune.batch_size = {params.batch_size} does not divide into {processes} processes"
            f" of {params.micro_batch_size} rows a pass; change batch_size or micro_batch_size"
        )
    return micro, share // micro


def _zero(stage: int) -> dict[str, Any]:
    """DeepSpeed's configuration; "auto" takes the Trainer's value."""
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
    }


def _prepare_deepspeed() -> None:
    """Let DeepSpeed run without its launcher: one process, one address."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed  # noqa: F401
    except ImportError:
        raise InputError(
            "finetune.zero_stage needs DeepSpeed, which is not installed; install it (Linux) or set"
            " finetune.zero_stage to 0"
        ) from None
    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone | {"MASTER_PORT": str(port)})


def _resume_point(scratch: Path) -> str | None:
    """The newest whole resume point; the Trainer writes its state last."""
    points = sorted(_points(scratch), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    return str(points[0]) if points else None


def _points(scratch: Path) -> Iterator[Path]:
    for path in scratch.glob("checkpoint-*"):
        if (path / "trainer_state.json").is_file():
            yield path
