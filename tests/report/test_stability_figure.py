"""How sure a choice is: the figure of calibration sizes, the words, the numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from report.report_cases import SIZE_ROWS, shown, size_row, small_plan, summary_of

from interlace.errors import InputError
from interlace.plan.record import Plan, Stability
from interlace.report.facts.calibration import enough, read_sizes
from interlace.report.facts.decision import certainty, notes
from interlace.report.figures.calibration import answer
from interlace.report.terminal.plan import layer_map_text
from interlace.report.terminal.summary import summary_table


def with_stability(same: float = 0.87, shares: dict[int, float] | None = None) -> Plan:
    """The small plan, which drops 2 and 5; by default 7 goes where 5 does not."""
    dropped = shares or {2: 1.0, 5: 0.87, 7: 0.13}
    stability = Stability(draws=200, same=same, dropped=dropped)
    return small_plan().model_copy(update={"stability": stability})


@pytest.mark.parametrize(
    ("rows", "facts"),
    [
        (SIZE_ROWS, r"^10% .* same ranking of triplets \(tau 0\.96\),\n.* 72% of draws$"),
        ([size_row(20, 0.96, None)], r"^10% .* \(tau 0\.96\)$"),
        ([size_row(2, 0.5), size_row(100, 0.9)], r"^Even 50% .* differently \(tau 0\.90\)$"),
        ([size_row(20, None)], "could not be ranked"),
    ],
)
def test_the_title_is_the_smallest_share_that_ranks_alike(
    rows: list[dict[str, Any]], facts: str
) -> None:
    assert re.search(facts, answer(rows))


@pytest.mark.parametrize(
    ("same", "shares", "facts"),
    [
        (0.5, {2: 0.61, 5: 0.58}, "50% of 200 .* least certain: 5 (58%), 2 (61%)"),
        (0.87, None, "87% of 200 .* least certain: 5 (87%)"),
        (1, {2: 1, 5: 1}, "all 200 resamples drop the same layers"),
        (0, {2: 1}, "0% of 200 .* least certain: 5 (0%)"),
    ],
)
def test_the_least_certain_layers_are_named(
    same: float, shares: dict[int, float] | None, facts: str
) -> None:
    plan = with_stability(same, shares)
    text = certainty(plan)
    assert re.fullmatch(facts.replace("(", r"\(").replace(")", r"\)"), text)
    assert notes(plan)[-1] == text
    assert text in shown(layer_map_text(plan), width=200)
    assert certainty(small_plan()) == ""


def test_the_summary_and_its_table_hold_the_share_in_percent() -> None:
    sure, unknown = summary_of(with_stability()), summary_of()
    assert sure["selection_same"] == pytest.approx(87)
    assert "87.0% of resamples" in shown(summary_table(sure))
    assert "selection_same" not in unknown
    assert "selection" not in shown(summary_table(unknown))


def test_the_smallest_share_that_ranks_alike_and_the_tau_of_a_tenth() -> None:
    assert enough([size_row(2, 0.96), *SIZE_ROWS[1:]], share=0.1) == pytest.approx(
        {
            "calibration_share": 10,
            "calibration_tenth_tau": 0.96,
            "calibration_enough_share": 0.1,
            "calibration_enough_tau": 0.96,
        }
    )
    assert enough([], share=0.1) == enough([size_row(20, None)], share=0.1) == {}
    assert enough([size_row(100, 0.9)], share=0.1) == {"calibration_share": 10}


@pytest.mark.parametrize(
    ("taus", "facts"),
    [
        ({2: 0.96, 20: 0.99}, "1% .* the same ranking as 10% .* 0.99.* 0.1% is enough"),
        ({2: 0.7, 20: 0.8, 100: 0.98}, "another ranking than 10% .* 5% is enough .tau 0.98"),
        ({20: 0.8}, "no smaller calibration set gave the same ranking"),
        ({20: 0.97}, "the same ranking as 10% (?!.*is enough)"),
    ],
)
def test_the_table_answers_whether_a_tenth_is_enough(taus: dict[int, float], facts: str) -> None:
    rows = [size_row(samples, tau) for samples, tau in taus.items()]
    text = shown(summary_table(summary_of() | enough(rows, share=0.1)))
    assert re.search(facts, " ".join(text.split()))


def test_missing_sizes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"calibration_size\.csv: no such file"):
        read_sizes(tmp_path / "calibration_size.csv")
