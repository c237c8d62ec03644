"""`select`: decide which layers are dropped, tuned and frozen."""

from functools import partial
from pathlib import Path

from interlace.params.choosing import SelectParams
from interlace.plan.candidates import read_chosen
from interlace.plan.record import read_decision
from interlace.plan.removals import Removals
from interlace.report.terminal.console import print_blocks
from interlace.report.terminal.plan import layer_map_text
from interlace.scores.resample import read_replicates
from interlace.scores.table import read_scores
from interlace.selection.removals import paper_rule, removals
from interlace.selection.select import resolve_ratio, select_layers
from interlace.selection.stability import plan_with_stability
from interlace.system.outputs import write_json

from .command import command


@command(SelectParams)
def main(params: SelectParams) -> None:
    """Decide which layers are dropped, tuned and frozen, and say why and how surely."""
    artifacts = Path("artifacts")
    scores = read_scores(artifacts / "scores.parquet", by_score=True)
    choose = partial(
        select_layers,
        method=params.method,
        ratio_or_drops=resolve_ratio(params.ratio, read_decision(artifacts / "budget.json")),
        options=params.select,
        seed=params.seed,
    )
    plan = read_chosen(artifacts / "candidates") if params.select.candidates else None
    if plan is None:
        replicates = read_replicates(artifacts / "replicates.parquet", scores)
        later = sorted((artifacts / "rounds").glob("*.parquet"))
        plan = plan_with_stability(choose, scores, replicates, later)
    plan.save(artifacts / "plan.json")
    choices = removals(scores, options=params.select, seed=params.seed)
    table = Removals(rule=paper_rule(plan.method), removals=tuple(choices))
    write_json(artifacts / "removals.json", table.model_dump(mode="json"))
    print_blocks(layer_map_text(plan))


if __name__ == "__main__":
    main()
