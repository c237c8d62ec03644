"""`report`: gather the numbers, draw the figures, write the model card."""

import json
from pathlib import Path

from rich.console import Console

from interlace.outputs import whole, write_json
from interlace.params import ReportParams
from interlace.plan import read_plan
from interlace.report.card import model_card
from interlace.report.figures import loss_figure, retention_figure
from interlace.report.summary import MODELS, count_parameters, left_out, summarise
from interlace.report.terminal import summary_table
from interlace.sources import model_folder
from stages.command import command, pinned


@command(ReportParams)
def main(params: ReportParams) -> None:
    """Gather the numbers of the run, draw its figures and write the model card."""
    plan = read_plan(Path("artifacts/plan.json"))
    evaluations = {
        name: json.loads(Path(f"artifacts/evaluation/{name}.json").read_text()) for name in MODELS
    }
    summary = summarise(
        evaluations,
        json.loads(Path("metrics/ttft.json").read_text()),
        plan,
        parameters_before=count_parameters(model_folder(pinned("model"))),
        parameters_after=count_parameters(Path("artifacts/pruned")),
    )
    missing = left_out(evaluations)
    card = model_card(
        name=f"{Path(params.model.id).name}-{params.method}-{100 * params.ratio:g}",
        base_model=params.model.id,
        summary=summary,
        plan=plan,
        params=params.model_dump(mode="json"),
        left_out=missing,
    )
    with whole(Path("artifacts/report")) as folder:
        folder.mkdir()
        (folder / "README.md").write_text(card, encoding="utf-8")
        retention_figure(evaluations, folder / "retention.png")
        loss_figure(Path("metrics/loss.csv"), folder / "loss.png")
    write_json(Path("metrics/summary.json"), summary)
    Console(highlight=False).print(summary_table(summary, missing))


if __name__ == "__main__":
    main()
