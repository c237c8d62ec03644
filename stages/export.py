"""`export`: write the pruned checkpoint."""

from pathlib import Path
from typing import Any

from interlace.outputs import remove, write_json
from interlace.params.exporting import ExportParams
from interlace.plan.record import read_plan
from interlace.pruning.export import check_made_for, export
from interlace.pruning.new_weights import Dense, new_weights
from interlace.pruning.parity import check_parity
from interlace.sources.pinned import model_folder
from stages.command import command, pinned, scratch_folder


@command(ExportParams)
def main(params: ExportParams) -> None:
    """Write the checkpoint that the plan leaves, before any tuning; check it on a few samples."""
    model, chosen, rows = pinned("model"), Path("artifacts/plan.json"), Path("data/calibration")
    plan, trust = read_plan(chosen), model["trust_remote_code"]
    check_made_for(plan, model)
    dense = Dense(model_folder(model), rows, params.sensitivity, trust)
    scratch = scratch_folder("export", params, [Path("artifacts/sources.json"), chosen, rows])
    replaced, report = new_weights(dense, plan, params.export, scratch)
    made: dict[str, Any] = {"replaced": replaced, "trust_remote_code": trust}
    asked = made | {"params": params.export, "answers": params.sensitivity}
    parity = export(
        dense.folder,
        plan,
        Path("artifacts/pruned"),
        check=lambda written: check_parity(written, dense.folder, plan, rows, **asked),
        **params.export.model_dump(include={"max_shard_mb", "dtype"}),
        **made,
    )
    write_json(Path("artifacts/export.json"), {"parity": parity} | report)
    remove(scratch)


if __name__ == "__main__":
    main()
