"""`reference_plan`: which layers of the dense model the reference run tunes."""

from pathlib import Path

from interlace.params.choosing import ReferencePlanParams
from interlace.plan.record import read_decision
from interlace.printable import say
from interlace.selection.reference import reference_plan, write_reference

from .command import command, pinned


@command(ReferencePlanParams)
def main(params: ReferencePlanParams) -> None:
    """Say which layers of the dense model the reference run tunes; none without a reference."""
    decision = read_decision(Path("artifacts/budget.json"))
    plan = reference_plan(params.reference, params.ratio, decision, pinned().model)
    write_reference(Path("artifacts/reference_plan.json"), plan)
    say(f"reference_plan: {f'{len(plan.tune)} layers to tune' if plan else 'no reference'}")


if __name__ == "__main__":
    main()
