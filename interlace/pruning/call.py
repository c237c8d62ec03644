"""The call `interlace.export`: a plan and a model, here or on the hub, become a checkpoint."""

from __future__ import annotations

from pathlib import Path

from interlace.data.call_rows import Draw, Rows, draw_rows, pin_rows
from interlace.errors import InputError
from interlace.params.exporting import Export
from interlace.params.measuring import Answers
from interlace.params.section import validated
from interlace.plan.record import Plan
from interlace.pruning import export as files
from interlace.sources.pin import open_checkpoint, pin_checkpoint
from interlace.system.work import unfinished, work_root


def export(
    model: Path | str,
    plan: Plan,
    out: Path | str,
    *,
    rows: Rows | None = None,
    samples: int = 512,
    compensate: str = "none",
    parity_samples: int = 4,
    dtype: str = "keep",
    max_shard_mb: int = 4096,
    healed: Path | str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    revision: str | None = None,
    trust_remote_code: bool = False,
    work: Path | str | None = None,
) -> Path:
    """Write a checkpoint without the dropped layers of a plan; the others are renumbered.

    Memory does not depend on the size of the model, unless rows are given.

    Args:
        model: hub id or folder of the dense model.
        plan: that `select` returned.
        out: folder to write; it appears once it is complete.
        rows: as `measure` takes them; to check that the checkpoint is the dense model without the
            layers, bit for bit, and to fit new weights on. `None`: it is not checked.
        samples: rows to draw, rows.
        compensate: `lstsq`: fit the last weight of kept layers to make up for dropped ones.
        parity_samples: rows to check it on, samples; 0: none.
        dtype: stored type of weights: keep, bfloat16, float16 or float32.
        max_shard_mb: largest weight file, MiB.
        healed: safetensors file of the layers that were healed between rounds.
        seed: of the draw of rows.
        overwrite: replace a checkpoint that is there.
        revision: of a model on the hub; `None`: the newest.
        trust_remote_code: let the model's own Python code run.
        work: folder from which an interrupted call resumes; `None`: it begins anew.

    Returns:
        The folder.

    Raises:
        InputError: the plan is for another model, the model cannot be read, `out` is there, a
            value is out of its range, rows are missing, or the disk is full.
        ContractError: the written model differs from the dense one without the layers.
    """
    options = {
        "compensate": compensate,
        "parity_samples": parity_samples if rows is not None else 0,
    }
    options |= {"dtype": dtype, "max_shard_mb": max_shard_mb}
    params = validated(Export, options, "export")
    dense, out = open_checkpoint(model, revision, trust_remote_code=trust_remote_code), Path(out)
    files.check_new(dense.folder, out, overwrite=overwrite)
    new_weights = plan.sparsity or healed or (params.compensate != "none" and plan.drop)
    if rows is None and (plan.sparsity == "wanda-2:4" or params.compensate != "none"):
        subject = plan.method if plan.sparsity else f"compensate = {params.compensate}"
        raise InputError(f"{subject}: is fitted on rows; pass rows, as to `measure`")
    if rows is None and not new_weights:
        shards = params.model_dump(include={"max_shard_mb", "dtype"})
        files.export_checkpoint(
            dense.folder, plan, out, trust_remote_code=trust_remote_code, **shards
        )
        return out
    from interlace.pruning.dense import Dense
    from interlace.pruning.written import write_pruned

    with work_root(work) as root:
        data = None if rows is None else pin_rows(rows, root)
        key = pin_checkpoint(dense, root), plan, params, f"{samples} {seed}", data or "no rows"
        with unfinished(root, "export", *key) as scratch:
            drawn = scratch / "rows"
            if data:
                draw = Draw(samples, seed, with_images=dense.architecture.takes_images)
                draw_rows(data, draw, drawn, root)
            source = Dense(dense, drawn, Answers(dtype="auto"))
            healed_file = None if healed is None else Path(healed)
            write_pruned(source, plan, out, params, scratch / "weights", healed_file)
    return out
