"""`export`: write the pruned checkpoint."""

from pathlib import Path

from interlace.checkpoint import export
from interlace.params import ExportParams
from interlace.plan import read_plan
from interlace.sources import model_folder
from stages.command import command, pinned


@command(ExportParams)
def main(params: ExportParams) -> None:
    """Write the checkpoint that the plan leaves, before any tuning."""
    model = pinned("model")
    export(
        model_folder(model),
        read_plan(Path("artifacts/plan.json")),
        Path("artifacts/pruned"),
        max_shard_mb=params.export.max_shard_mb,
        trust_remote_code=model["trust_remote_code"],
    )


if __name__ == "__main__":
    main()
