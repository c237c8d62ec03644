"""`export`: write the pruned checkpoint."""

from pathlib import Path

from interlace.errors import MissingInputError
from interlace.params.exporting import ExportParams
from interlace.plan.record import read_plan
from interlace.plan.runtimes import say_misreadings
from interlace.printable import say
from interlace.pruning.dense import Dense
from interlace.pruning.export import check_made_for
from interlace.pruning.written import write_pruned
from interlace.system.outputs import write_json

from .command import ARTIFACTS, command, pinned, scratch_folder


@command(ExportParams)
def main(params: ExportParams) -> None:
    """Write the checkpoint that the plan leaves, before any tuning; check it on a few samples."""
    model, plan_file, rows = pinned().model, Path("artifacts/plan.json"), Path("data/calibration")
    plan = read_plan(plan_file)
    check_made_for(plan, model)
    healed = Path("artifacts/rounds/healed.safetensors") if plan.heal_steps else None
    if healed and not healed.is_file():
        raise MissingInputError(healed)
    dense = Dense(model.checkpoint(), rows, params.answer_options)
    inputs = [Path("artifacts/dense.json"), plan_file, rows, *([healed] if healed else [])]
    with scratch_folder("export", inputs, params) as scratch:
        report = write_pruned(dense, plan, Path("artifacts/pruned"), params.export, scratch, healed)
        write_json(ARTIFACTS / "export.json", report.of_plan(plan_file).as_json())
    say(f"export: artifacts/pruned: {len(plan.keep)} of {plan.n_layers} layers, {report.parity}")
    say_misreadings(plan, "export")


if __name__ == "__main__":
    main()
