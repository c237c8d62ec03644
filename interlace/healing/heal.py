"""Heal a pruned checkpoint: locally, end to end, or one after the other.

The dense model goes through the same training as the reference.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from interlace import distributed as processes
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.healing import finetune
from interlace.healing import local as local_healing
from interlace.healing.distillation import DistilledLoss
from interlace.outputs import whole
from interlace.params.healing import Finetune, Recipe
from interlace.plan.record import Plan
from interlace.pruning.export import export


def heal(
    dense: Checkpoint,
    pruned: Checkpoint,
    train: Path,
    out: Path,
    curves: tuple[Path, Path],
    *,
    plan: Plan,
    params: Finetune,
    seed: int,
    scratch: Path,
) -> None:
    """Write the tuned checkpoint.

    Args:
        dense: the dense checkpoint, the teacher.
        pruned: the checkpoint that `export` wrote.
        train: folder of rows that `sample` wrote.
        out: folder for the tuned checkpoint; files without tuned layers are pruned's own.
        curves: CSV files for local healing and for end-to-end training; empty where left out.
        plan: which layers were dropped and are tuned.
        params: the recipe; with `local_steps`, end-to-end training starts from healed layers, and
            with `max_steps` 0 there is none.
        seed: of the order of rows.
        scratch: folder for resume points; must be another one whenever inputs or params change.

    Raises:
        InputError: what is asked does not fit the plan, or a row cannot be used.
        ContractError: a loss is not finite.
    """
    start, (local_curve, curve) = pruned, curves
    asked: dict[str, Any] = {"plan": plan, "params": params, "seed": seed}
    if params.local_steps and plan.tune and plan.drop:
        start, kept = pruned.at(scratch / "healed"), scratch / "local_loss.csv"
        if not start.folder.is_dir():
            local_healing.heal_locally(
                dense, pruned, train, start.folder, kept, scratch=scratch / "local", **asked
            )
        if processes.process_rank() == 0:  # also of a run that was killed in end-to-end training
            with whole(local_curve) as partial:
                shutil.copyfile(kept, partial)
    elif processes.process_rank() == 0:
        local_healing.write_curve(local_curve, [])
    given: dict[str, Any] = {"scratch": scratch / "end-to-end"}
    if params.distill_logits or params.distill_states:

        def objective(model: Any) -> DistilledLoss:
            teacher = dense.open_model(dtype=params.dtype)
            return DistilledLoss(model, teacher, plan, params)

        given["objective"] = objective
    finetune.finetune(start, train, out, curve, **given, **asked)


def train_reference(
    dense: Checkpoint,
    train: Path,
    out: Path,
    *,
    plan: Plan,
    params: Recipe,
    seed: int,
    scratch: Path,
) -> None:
    """Write the dense checkpoint tuned end to end by the same recipe.

    Args:
        dense: the dense checkpoint.
        train: folder of rows that `sample` wrote.
        out: folder for the tuned checkpoint.
        plan: what `reference.reference_plan` made: drops nothing.
        params: the recipe.
        seed: of the order of rows.
        scratch: folder for unfinished work.
    """
    processes.meet()
    start = dense.at(scratch / "dense")
    if processes.process_rank() == 0 and not start.folder.is_dir():
        export(dense.folder, plan, start.folder, trust_remote_code=dense.trust_remote_code)
    processes.barrier()
    curve = scratch / "loss.csv"
    given: dict[str, Any] = {"seed": seed, "scratch": scratch / "end-to-end"}
    finetune.finetune(start, train, out, curve, plan=plan, params=params, **given)
