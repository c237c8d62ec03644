"""`select`: decide which layers are dropped, tuned and frozen."""

from pathlib import Path

from rich.console import Console

from interlace.outputs import write_json
from interlace.params import SelectParams
from interlace.plan import read_decision, select
from interlace.report.drawings import layer_map_figure
from interlace.report.terminal import layer_map_text
from stages.command import command


@command(SelectParams)
def main(params: SelectParams) -> None:
    """Decide which layers are dropped, tuned and frozen, and say why."""
    plan = select(
        Path("artifacts/scores.parquet"),
        method=params.method,
        ratio=params.ratio,
        seed=params.seed,
        later=sorted(Path("artifacts/rounds").glob("*.parquet")),
        decision=read_decision(Path("artifacts/budget.json")),
        **params.select.model_dump(),
    )
    write_json(Path("artifacts/plan.json"), plan.model_dump(mode="json"))
    layer_map_figure(plan, Path("artifacts/layer_map.png"))
    Console(highlight=False).print(layer_map_text(plan))


if __name__ == "__main__":
    main()
