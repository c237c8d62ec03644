"""New values of kept weights: healed between rounds, compensated for dropped layers, or sparse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from interlace.checkpoint.safetensors import stored_tensors
from interlace.params.exporting import Export
from interlace.plan.record import Plan
from interlace.pruning.compensation import compensate
from interlace.pruning.dense import Dense
from interlace.pruning.new_values import CheckpointStore
from interlace.pruning.report import (
    CompensationReport,
    CutReport,
    ExportReport,
    HealedReport,
    SparsityReport,
)
from interlace.pruning.sparsity import sparsify

Replaced = dict[str, Path]  # a tensor's stored name -> the file that holds its new value


def new_weights(
    dense: Dense, plan: Plan, params: Export, scratch: Path, healed: Path | None = None
) -> tuple[Replaced, ExportReport]:
    """Make the new weights that a plan and the parameters ask for.

    Args:
        dense: the dense model.
        plan: names the dropped layers, or a method of sparsity.
        params: the method of compensation, and the count of samples.
        scratch: folder for the weights' files, and for resuming; must be another one whenever
            inputs or params change.
        healed: safetensors file of the layers healed between rounds, by stored name.

    Returns:
        The file of each new weight by stored name, for `export`, and a report without `parity`.

    Raises:
        InputError: the model's layers cannot be compensated or made sparse, or too few samples.
        ContractError: a measured state or loss is not finite.
    """
    replaced = of_file(healed)
    compensation, sparsity, healing = None, None, None
    if replaced:
        layers = {dense.checkpoint.layers.split(name) for name in replaced}
        healing = HealedReport(
            rounds=plan.rounds - 1,
            steps=plan.heal_steps,
            layers=sorted({layer for layer, _ in filter(None, layers)}),
        )
    if plan.sparsity:
        replaced = sparse(dense, plan.sparsity, params.sparsity_samples, scratch)
        sparsity = SparsityReport(method=plan.sparsity, tensors=len(replaced))
    elif params.compensate != "none" and plan.drop:
        replaced, cuts = compensated(dense, plan.drop, params.compensate_samples, scratch, healed)
        compensation = CompensationReport(method=params.compensate, cuts=cuts)
    return replaced, ExportReport(healed=healing, compensation=compensation, sparsity=sparsity)


def of_file(weights: Path | None) -> Replaced:
    """Return the file of each weight in it by stored name; nothing without a file."""
    return {} if weights is None else dict.fromkeys(stored_tensors(weights), weights)


def compensated(
    dense: Dense,
    drop: Sequence[int],
    samples: int,
    scratch: Path,
    healed: Path | None = None,
) -> tuple[Replaced, list[CutReport]]:
    """Make weights that compensate for dropped layers, starting from healed ones where given.

    Returns:
        The file of each new weight by stored name, healed ones included; and a report on each
        fitted layer.
    """
    layers, rows = dense.checkpoint.layers, dense.rows(samples, scratch / "rows")
    model = dense.open_model()
    start = layers.new_values(model, healed) if healed else {}
    store = CheckpointStore(layers.with_values(healed) if healed else layers, scratch)
    reports = compensate(model, drop, rows, store, start).reports
    return of_file(healed) | store.replaced(reports), reports


def sparse(dense: Dense, method: str, samples: int, scratch: Path) -> Replaced:
    """Make weights of which half are zero."""
    if method == "magnitude-2:4":
        skeleton = dense.checkpoint.without_weights()
        return sparsify(skeleton, dense.checkpoint.layers, None, scratch)
    rows = dense.rows(samples, scratch / "rows")
    return sparsify(dense.open_model(), dense.checkpoint.layers, rows, scratch)
