"""Heal a pruned checkpoint: layer by layer, end to end, or one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interlace import finetune, local_healing
from interlace.checkpoint import with_tensors
from interlace.params import Finetune
from interlace.plan import Plan
from interlace.processes import is_first, join_processes, wait_for_everyone


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
        ContractError: a frozen parameter moved, or a loss is not finite.
    """
    join_processes()
    start, (local_curve, curve) = pruned, curves
    asked: dict[str, Any] = {
        "plan": plan,
        "params": params,
        "seed": seed,
        "trust_remote_code": trust_remote_code,
    }
    if params.local_steps and plan.tune and plan.drop:
        start = scratch / "healed"
        if not start.is_dir():
            local_healing.heal_locally(
                dense, pruned, train, start, local_curve, scratch=scratch / "local", **asked
            )
    elif is_first():
        local_healing.write_curve(local_curve, [])
    if params.max_steps and plan.tune:
        finetune.finetune(start, train, out, curve, scratch=scratch / "end-to-end", **asked)
        return
    if is_first():
        finetune.write_curve(curve, [])
        with_tensors(start, {}, out)
    wait_for_everyone()
