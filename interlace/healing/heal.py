"""Heal a pruned checkpoint: locally, end to end, or one after the other.

The dense model goes through the same training as the reference.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from interlace import distributed as processes
from interlace.healing import finetune
from interlace.healing import local as local_healing
from interlace.healing.distillation import DistilledLoss
from interlace.model.open import open_model
from interlace.outputs import whole
from interlace.params.healing import Finetune, Recipe
from interlace.plan.record import Plan
from interlace.pruning.export import export


def heal(
    dense: Path,
    pruned: Path,
    train: Path,
    out: Path,
    curves: tuple[Path, Path],
    *,
    plan: Plan,
    params: Finetune,
    seed: int,
    scratch: Path,
    trust_remote_code: bool = False,
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
        trust_remote_code: let the model's own code run.

    Raises:
        InputError: what is asked does not fit the plan, or a row cannot be used.
        ContractError: a loss is not finite.
    """
    start, (local_curve, curve) = pruned, curves
    asked: dict[str, Any] = {
        "plan": plan,
        "params": params,
        "seed": seed,
        "trust_remote_code": trust_remote_code,
    }
    if params.local_steps and plan.tune and plan.drop:
        start, kept = scratch / "healed", scratch / "local_loss.csv"
        if not start.is_dir():
            local_healing.heal_locally(
                dense, pruned, train, start, kept, scratch=scratch / "local", **asked
            )
        if processes.process_rank() == 0:  # also of a run that was killed in end-to-end training
            with whole(local_curve) as partial:
                shutil.copyfile(kept, partial)
    elif processes.process_rank() == 0:
        local_healing.write_curve(local_curve, [])
    given: dict[str, Any] = {"scratch": scratch / "end-to-end"}
    if params.distill_logits or params.distill_states:

        def objective(model: Any) -> DistilledLoss:
            teacher = open_model(dense, dtype=params.dtype, trust_remote_code=trust_remote_code)
            return DistilledLoss(model, teacher, plan, params)

        given["objective"] = objective
    finetune.finetune(start, train, out, curve, **given, **asked)


def train_reference(
    dense: Path,
    train: Path,
    out: Path,
    *,
    plan: Plan,
    params: Recipe,
    seed: int,
    scratch: Path,
    trust_remote_code: bool = False,
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
        trust_remote_code: let the model's own code run.
    """
    processes.meet()
    start, trust = scratch / "dense", trust_remote_code
    if processes.process_rank() == 0 and not start.is_dir():
        export(dense, plan, start, trust_remote_code=trust)  # tuned layers in files of their own
    processes.barrier()
    curve = scratch / "loss.csv"
    given: dict[str, Any] = {"seed": seed, "scratch": scratch / "end-to-end"}
    finetune.finetune(
        start, train, out, curve, plan=plan, params=params, trust_remote_code=trust, **given
    )
