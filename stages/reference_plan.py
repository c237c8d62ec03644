"""`reference_plan`: which layers of the dense model the reference run tunes."""

from pathlib import Path

from interlace.params import ReferencePlanParams
from interlace.plan import read_decision
from interlace.reference import reference_plan, write_reference
from stages.command import command, pinned


@command(ReferencePlanParams)
def main(params: ReferencePlanParams) -> None:
    """Say which layers of the dense model the reference run tunes; none without a reference."""
    decision = read_decision(Path("artifacts/budget.json"))
    plan = reference_plan(params.reference, params.ratio, decision, pinned("model"))
    write_reference(Path("artifacts/reference_plan.json"), plan)


if __name__ == "__main__":
    main()
