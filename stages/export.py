"""`export`: write the pruned checkpoint."""

from pathlib import Path

from interlace.checkpoint import export
from interlace.new_weights import Dense, new_weights
from interlace.outputs import remove, write_json
from interlace.params import ExportParams
from interlace.plan import read_plan
from interlace.sources import model_folder
from stages.command import command, pinned, scratch_folder


@command(ExportParams)
def main(params: ExportParams) -> None:
    """Write the checkpoint that the plan leaves, before any tuning."""
    model, chosen = pinned("model"), Path("artifacts/plan.json")
    folder, plan, trust = model_folder(model), read_plan(chosen), model["trust_remote_code"]
    calibration = Path("data/calibration")
    inputs = [Path("artifacts/sources.json"), chosen, calibration]
    scratch = scratch_folder("export", params, inputs)
    dense = Dense(folder, calibration, params.sensitivity, trust)
    replaced, report = new_weights(dense, plan, params.export, scratch)
    export(
        folder,
        plan,
        Path("artifacts/pruned"),
        replaced=replaced,
        max_shard_mb=params.export.max_shard_mb,
        trust_remote_code=trust,
    )
    write_json(Path("artifacts/export.json"), report)
    remove(scratch)


if __name__ == "__main__":
    main()
