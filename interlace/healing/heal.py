"""Heal a pruned checkpoint: locally, end to end, or one after the other.

The reference is the dense model, trained end to end by the same recipe.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.healing.distillation import DistilledLoss
from interlace.healing.finetune import finetune
from interlace.healing.local import CURVE as LOCAL_CURVE
from interlace.healing.local import heal_locally
from interlace.model.answer_loss import AnswerLoss
from interlace.model.linear_attention import separate_samples
from interlace.params.healing import Finetune, Recipe
from interlace.plan.record import Plan
from interlace.pruning.export import export_checkpoint
from interlace.system import distributed
from interlace.system.outputs import whole
from interlace.system.resumable import intact, kept, mark
from interlace.training.curve import Curve


def heal_checkpoint(
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
    logs: Path | None = None,
) -> None:
    """Write the tuned checkpoint.

    Args:
        dense: the dense checkpoint, the teacher.
        pruned: the checkpoint that `export` wrote.
        train: folder of rows that `sample` wrote.
        out: folder for the tuned checkpoint; files without tuned layers are pruned's own.
        curves: CSV files for local healing and for end-to-end training, written while these run;
            without rows where left out.
        plan: which layers were dropped and are tuned.
        params: the recipe; with `local_steps`, end-to-end training starts from healed layers, and
            with `max_steps` 0 there is none.
        seed: of the order of rows.
        scratch: folder for resume points; must be another one whenever inputs or params change.
        logs: folder for `finetune.report_to`; `None`: nothing is reported.

    Raises:
        InputError: what is asked does not fit the plan, or a row cannot be used.
        ContractError: a loss is not finite.
    """
    pruned.check_opens()
    distributed.meet()  # before the first look at scratch, which the first process holds
    start, (local_curve, curve) = pruned, curves
    if params.local_steps and plan.tune and plan.drop:
        start, finished_curve = pruned.at(scratch / "healed"), scratch / "local_loss.csv"
        first = distributed.process_rank() == 0
        if not distributed.gather(first and intact(start.folder) and intact(finished_curve))[0]:
            heal_locally(
                dense,
                pruned,
                train,
                start.folder,
                local_curve,
                plan=plan,
                params=params,
                seed=seed,
                scratch=scratch / "local",
                logs=logs,
            )
            if first:
                mark(start.folder)
                with kept(finished_curve) as partial:
                    shutil.copyfile(local_curve, partial)
        elif first:  # a run that resumes end-to-end training
            with whole(local_curve) as partial:
                shutil.copyfile(finished_curve, partial)
    else:
        Curve(local_curve, LOCAL_CURVE, steps=0, params=params).write([])

    def distilled(model: nn.Module) -> DistilledLoss:
        teacher = separate_samples(dense.open_model(dtype=params.dtype))
        return DistilledLoss(model, teacher, plan, params)

    finetune(
        start,
        train,
        out,
        curve,
        plan=plan,
        params=params,
        seed=seed,
        scratch=scratch / "end-to-end",
        logs=logs,
        objective=distilled if params.distill_logits or params.distill_states else AnswerLoss,
    )


def train_reference(
    dense: Checkpoint,
    train: Path,
    out: Path,
    *,
    plan: Plan,
    params: Recipe,
    seed: int,
    scratch: Path,
    logs: Path | None = None,
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
        logs: folder for `finetune.report_to`; `None`: nothing is reported.
    """
    distributed.meet()
    start = dense.at(scratch / "dense")
    if distributed.process_rank() == 0 and not intact(start.folder):
        export_checkpoint(
            dense.folder, plan, start.folder, trust_remote_code=dense.trust_remote_code
        )
        mark(start.folder)
    distributed.barrier()
    finetune(
        start,
        train,
        out,
        scratch / "loss.csv",
        plan=plan,
        params=params,
        seed=seed,
        scratch=scratch / "end-to-end",
        logs=logs,
    )
