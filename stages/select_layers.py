"""`select`: decide which layers are dropped, tuned and frozen."""

from pathlib import Path

from rich.console import Console

from interlace.outputs import write_json
from interlace.params.choosing import SelectParams
from interlace.plan.record import read_decision
from interlace.plan.removals import Removals
from interlace.report.terminal.plan import layer_map_text
from interlace.scores.resample import read_replicates
from interlace.scores.table import read_scores
from interlace.selection.removals import paper_rule, removals
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
    alike = {name: choice[name] for name in ("shortfall", "alpha", "protect_first", "base")}
    others = removals(scores, seed=params.seed, **alike)
    table = Removals(rule=paper_rule(plan.method), removals=tuple(others))
    write_json(artifacts / "removals.json", table.model_dump(mode="json"))
    Console(highlight=False).print(layer_map_text(plan, table.rule))


if __name__ == "__main__":
    main()
