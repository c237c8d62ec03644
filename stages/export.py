"""`export`: write the pruned checkpoint."""

from pathlib import Path

from interlace.checkpoint import check_made_for
from interlace.outputs import write_json
from interlace.params import ExportParams
from interlace.parity import checked_export
from interlace.plan import read_plan
from interlace.sources import model_folder
from stages.command import command, pinned


@command(ExportParams)
def main(params: ExportParams) -> None:
    """Write the checkpoint that the plan leaves, before any tuning; check it on a few samples."""
    model, plan = pinned("model"), read_plan(Path("artifacts/plan.json"))
    check_made_for(plan, model)
    parity = checked_export(
        model_folder(model),
        plan,
        Path("artifacts/pruned"),
        Path("data/calibration"),
        params=params.export,
        trust_remote_code=model["trust_remote_code"],
    )
    write_json(Path("artifacts/export.json"), {"parity": parity})


if __name__ == "__main__":
    main()
