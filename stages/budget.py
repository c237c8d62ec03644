"""`budget`: find how many layers `ratio: auto` drops."""

from pathlib import Path

from interlace.params.budget import BudgetParams
from interlace.printable import say
from interlace.system.outputs import write_json

from .command import command, pinned


@command(BudgetParams)
def main(params: BudgetParams) -> None:
    """Turn a budget into a number of layers; nothing to do where the ratio is given."""
    out = Path("artifacts/budget.json")
    if params.ratio != "auto":
        write_json(out, None)
        say(f"budget: none, ratio is {params.ratio}")
        return
    from interlace.budget import resolve_budget

    scores, calibration = Path("artifacts/scores.parquet"), Path("data/calibration")
    decision = resolve_budget(pinned().model, scores, calibration, params)
    write_json(out, decision.model_dump(mode="json"))
    say(f"budget: {decision.reason}")


if __name__ == "__main__":
    main()
