"""Parameters of the budget behind `ratio: auto`."""

from __future__ import annotations

from pydantic import Field

from interlace.errors import InputError
from interlace.params.choosing import Method, Ratio, Select
from interlace.params.measuring import SensitivityParams
from interlace.params.section import Section
from interlace.params.timing import TtftParams


class Budget(Section):
    """The target of `ratio: auto`; exactly one of them is set."""

    params: float | None = Field(
        None, gt=0, lt=1, description="largest share of the dense model's parameters to keep"
    )
    ttft_speedup: float | None = Field(
        None, gt=1, description="least speedup of the first token, dense time / pruned time"
    )
    retention: float | None = Field(
        None,
        gt=0,
        le=100,
        description="least accuracy on calibration answers before tuning, percent of dense",
    )

    def target(self) -> tuple[str, float]:
        """Return the name of the budget that is set, and its value.

        Raises:
            InputError: none or several are set.
        """
        targets = [(name, value) for name, value in self if value is not None]
        if len(targets) != 1:
            values = (
                ", ".join(f"budget.{name} = {value}" for name, value in targets) or "none is set"
            )
            raise InputError(
                "ratio = auto needs exactly one of budget.params, budget.ttft_speedup and"
                f" budget.retention: {values}"
            )
        return targets[0]


class BudgetParams(SensitivityParams, TtftParams):
    """`budget`: find how many layers `ratio: auto` drops; nothing for a ratio that is given."""

    ratio: Ratio
    method: Method
    select: Select = Select()
    budget: Budget = Budget()
