"""The call `interlace.heal`: a pruned checkpoint learns from rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.data.call_rows import Draw, Rows, draw_rows, pin_rows
from interlace.errors import InputError
from interlace.healing import heal as healing
from interlace.model.prefetch import automatic_workers
from interlace.params.healing import Also, Finetune
from interlace.params.section import validated
from interlace.plan.record import Plan
from interlace.pruning.export import check_new
from interlace.sources.pin import open_checkpoint, pin_checkpoint
from interlace.system.work import unfinished, work_root


def heal(
    pruned: Path | str,
    plan: Plan,
    rows: Rows,
    out: Path | str,
    *,
    dense: Path | str | None = None,
    samples: int | None = None,
    epochs: float = 1.0,
    max_steps: int = -1,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
    micro_batch_size: int = 16,
    max_length: int = 8192,
    min_pixels: int | None = 784,
    max_pixels: int | None = 50176,
    also: Sequence[Also] = (),
    lora_rank: int = 0,
    gradient_checkpointing: bool = True,
    local_steps: int = 0,
    local_learning_rate: float = 1e-3,
    distill_logits: float = 0.0,
    distill_states: float = 0.0,
    curve: Path | str | None = None,
    seed: int = 0,
    dtype: str = "auto",
    overwrite: bool = False,
    trust_remote_code: bool = False,
    work: Path | str | None = None,
) -> Path:
    """Train the layers of a pruned checkpoint that the plan tunes; all others keep their bytes.

    One process trains, without DeepSpeed; the pipeline trains with several.

    Args:
        pruned: folder that `export` wrote.
        plan: that it was made by.
        rows: as `measure` takes them; their answers are learned.
        out: folder to write; it appears once it is complete.
        dense: hub id or folder of the dense model, for local healing and distillation.
        samples: rows to draw; `None`: all, of FineVision 1%.
        epochs: passes over the rows, epochs.
        max_steps: stop after this many updates, steps; -1: epochs.
        learning_rate: peak learning rate of AdamW.
        batch_size: rows per update, rows.
        micro_batch_size: rows per forward pass, rows.
        max_length: longer rows are cut at a turn, tokens.
        min_pixels: smallest image, pixels; `None`: the processor's own.
        max_pixels: cap on an image's size, pixels; `None`: the processor's own.
        also: weights that learn beside the planned layers: projector, lm_head, norms.
        lora_rank: rank of adapters, merged when written; 0: whole layers.
        gradient_checkpointing: recompute activations, saves memory.
        local_steps: updates of local healing before that, steps; 0: none.
        local_learning_rate: its peak learning rate.
        distill_logits: weight of the divergence from the dense model's answers.
        distill_states: weight of the anchors' squared error to the dense model.
        curve: CSV file for the loss by step, written while it runs; `None`: none.
        seed: of the draw and the order of rows.
        dtype: type to compute in; auto: bfloat16 on a GPU, float32 on a CPU.
        overwrite: replace a checkpoint that is there.
        trust_remote_code: let the model's own Python code run.
        work: folder from which an interrupted call resumes; `None`: it begins anew.

    Returns:
        The folder.

    Raises:
        InputError: a value out of its range, `out` is there, or rows that cannot be used.
        ContractError: a loss is not finite.
    """
    params = validated(
        Finetune,
        {
            **{"epochs": epochs, "max_steps": max_steps, "learning_rate": learning_rate},
            **{"batch_size": batch_size, "micro_batch_size": micro_batch_size},
            **{"max_length": max_length, "min_pixels": min_pixels, "max_pixels": max_pixels},
            **{"also": tuple(also), "lora_rank": lora_rank, "dtype": dtype},
            **{"gradient_checkpointing": gradient_checkpointing, "zero_stage": 0},
            **{"local_steps": local_steps, "local_learning_rate": local_learning_rate},
            **{"distill_logits": distill_logits, "distill_states": distill_states},
            "workers": automatic_workers(None),
        },
        "heal",
    )
    start, out = Checkpoint(Path(pruned), trust_remote_code), Path(out)
    check_new(start.folder, out, overwrite=overwrite)
    if dense is None and (local_steps or distill_logits or distill_states):
        raise InputError(
            "heal: local healing and distillation learn from the dense model; name it as dense"
        )
    teacher = open_checkpoint(dense or start.folder, trust_remote_code=trust_remote_code)
    with work_root(work) as root:
        models = pin_checkpoint(start, root), pin_checkpoint(teacher, root)
        data = pin_rows(rows, root)
        key = *models, plan, data, params, f"{samples} {seed}"
        with unfinished(root, "heal", *key) as scratch:
            draw = Draw(samples, seed, with_images=start.architecture.takes_images)
            train = draw_rows(data, draw, scratch / "rows", root)
            curves = scratch / "local.csv", Path(curve) if curve else scratch / "loss.csv"
            healing.heal_checkpoint(
                teacher,
                start,
                train,
                out,
                curves,
                plan=plan,
                params=params,
                seed=seed,
                scratch=scratch,
            )
    return out
