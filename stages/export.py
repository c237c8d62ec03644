"""`export`: write the pruned checkpoint."""

from pathlib import Path
from typing import Any

from interlace.checkpoint import check_made_for, export
from interlace.outputs import write_json
from interlace.params import ExportParams
from interlace.parity import check_parity
from interlace.plan import read_plan
from interlace.sources import model_folder
from stages.command import command, pinned


@command(ExportParams)
def main(params: ExportParams) -> None:
    """Write the checkpoint that the plan leaves, before any tuning, and check it."""
    model, plan = pinned("model"), read_plan(Path("artifacts/plan.json"))
    check_made_for(plan, model)
    dense, trust = model_folder(model), model["trust_remote_code"]
    rows = Path("data/calibration")

    def check(written: Path) -> dict[str, Any]:
        return check_parity(
            dense, plan, written, rows, params=params.export, trust_remote_code=trust
        )

    parity = export(
        dense,
        plan,
        Path("artifacts/pruned"),
        max_shard_mb=params.export.max_shard_mb,
        dtype=params.export.dtype,
        check=check,
        trust_remote_code=trust,
    )
    write_json(Path("artifacts/export.json"), {"parity": parity})


if __name__ == "__main__":
    main()
