"""What of the kept weights a checkpoint gets anew: compensated for dropped layers, or sparse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interlace.params.exporting import Export
from interlace.plan.record import Plan
from interlace.pruning.compensation import compensate
from interlace.pruning.dense import Dense
from interlace.pruning.sparsity import sparsify

Replaced = dict[str, Path]  # a tensor's stored name -> the file that holds its new value


def new_weights(
    dense: Dense, plan: Plan, params: Export, scratch: Path
) -> tuple[Replaced, dict[str, Any]]:
    """Make the new weights that a plan and the parameters ask for.

    Args:
        dense: the dense model.
        plan: which layers go, or what becomes sparse.
        params: whether to compensate, and how many samples to take.
        scratch: folder for the weights' files, and for resuming; must be another one whenever
            inputs or params change.

    Returns:
        The file of each new weight by stored name, for `checkpoint.export`, and a report:
        `compensation` (`method`, and the `cuts` that `compensation.compensate` reports) and
        `sparsity` (`method`, and how many `tensors` were masked), each none where not asked for.

    Raises:
        InputError: the model's layers cannot be compensated or made sparse, or too few samples.
        ContractError: what was measured is not finite.
    """
    report: dict[str, Any] = {"compensation": None, "sparsity": None}
    if plan.sparsity:
        replaced = sparse(dense, plan.sparsity, params.sparsity_samples, scratch)
        report["sparsity"] = {"method": plan.sparsity, "tensors": len(replaced)}
        return replaced, report
    if params.compensate == "none" or not plan.drop:
        return {}, report
    replaced, cuts = compensated(dense, plan.drop, params.compensate_samples, scratch)
    report["compensation"] = {"method": params.compensate, "cuts": cuts}
    return replaced, report


def compensated(
    dense: Dense, drop: Sequence[int], samples: int, scratch: Path
) -> tuple[Replaced, list[dict[str, Any]]]:
    """Weights that make up for dropped layers, and what came of each run of them."""
    rows = dense.rows(samples, scratch / "rows")
    return compensate(dense.open_model(), dense.checkpoint.layers, drop, rows, scratch)


def sparse(dense: Dense, method: str, samples: int, scratch: Path) -> Replaced:
    """Weights of which half are zero, by one of the methods that do so."""
    if method == "magnitude-2:4":
        skeleton = dense.checkpoint.without_weights()
        return sparsify(skeleton, dense.checkpoint.layers, None, scratch)
    rows = dense.rows(samples, scratch / "rows")
    return sparsify(dense.open_model(), dense.checkpoint.layers, rows, scratch)
