"""The pruned checkpoint of a plan: new weights where they are asked for, files, and their check."""

from __future__ import annotations

from pathlib import Path

from interlace.params.exporting import Export
from interlace.plan.record import Plan
from interlace.pruning.dense import Dense
from interlace.pruning.export import export_checkpoint
from interlace.pruning.new_weights import new_weights
from interlace.pruning.parity import check_parity
from interlace.pruning.report import ExportReport


def write_pruned(
    dense: Dense, plan: Plan, out: Path, params: Export, scratch: Path, healed: Path | None = None
) -> ExportReport:
    """Write the checkpoint that a plan leaves, checked on a few rows.

    Args:
        dense: the dense model, and the calibration rows.
        plan: names the dropped layers.
        out: folder to write; an old checkpoint is replaced once the new one is complete.
        params: of new weights, files and the check.
        scratch: folder for new weights; must be another one whenever inputs or params change.
        healed: safetensors file of the layers healed between rounds, by stored name.

    Raises:
        InputError: see `export`, `new_weights` and `check_parity`.
        ContractError: see there.
    """
    replaced, report = new_weights(dense, plan, params, scratch, healed)
    parity = export_checkpoint(
        dense.checkpoint.folder,
        plan,
        out,
        replaced=replaced,
        check=lambda written: check_parity(written, dense, plan, params, replaced),
        trust_remote_code=dense.checkpoint.trust_remote_code,
        **params.model_dump(include={"max_shard_mb", "dtype"}),
    )
    return report.model_copy(update={"parity": parity})
