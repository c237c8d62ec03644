"""`select`: decide which layers are dropped, tuned and frozen."""

from pathlib import Path

from rich.console import Console

from interlace.outputs import write_json
from interlace.params.choosing import SelectParams
from interlace.plan.record import read_decision
from interlace.report.figures.layer_map import layer_map_figure
from interlace.report.figures.removals import removal_map
from interlace.report.terminal.plan import layer_map_text
from interlace.scores.resample import read_replicates
from interlace.scores.table import read_scores
from interlace.selection.select import select
from interlace.selection.stability import stability
from stages.command import command


@command(SelectParams)
def main(params: SelectParams) -> None:
    """Decide which layers are dropped, tuned and frozen, and say why and how surely."""
    artifacts, choice = Path("artifacts"), params.select.asked()
    scores = read_scores(artifacts / "scores.parquet")
    asked = {"method": params.method, "ratio": params.ratio, "seed": params.seed, **choice}
    asked["later"] = sorted((artifacts / "rounds").glob("*.parquet"))
    asked["decision"] = read_decision(artifacts / "budget.json")
    plan = select(scores, **asked)
    sure = stability(plan, scores, read_replicates(artifacts / "replicates.parquet"), asked)
    plan = plan.model_copy(update={"stability": sure})
    write_json(artifacts / "plan.json", plan.model_dump(mode="json"))
    layer_map_figure(plan, artifacts / "layer_map.png")
    alike = {name: choice[name] for name in ("shortfall", "alpha", "protect_first", "base")}
    removal_map(scores, artifacts / "removals.png", seed=params.seed, **alike)
    Console(highlight=False).print(layer_map_text(plan))


if __name__ == "__main__":
    main()
