"""How sure a choice is: the figure of calibration sizes, the words, the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report.report_cases import (
    RULE,
    SIZE_ROWS,
    TTFT,
    evaluations,
    shown,
    size_row,
    small_plan,
)

from interlace.errors import InputError
from interlace.plan.record import Plan, Stability
from interlace.report.facts.calibration import enough, read_sizes
from interlace.report.facts.decision import certainty, notes
from interlace.report.facts.summary import summarise
from interlace.report.figures.calibration import answer, calibration_size_figure
from interlace.report.terminal.plan import layer_map_text
from interlace.report.terminal.summary import summary_table


def with_stability(same: float = 0.87, shares: dict[int, float] | None = None) -> Plan:
    """The small plan, which drops 2 and 5; by default 7 goes where 5 does not."""
    dropped = shares or {2: 1.0, 5: 0.87, 7: 0.13}
    stability = Stability(draws=200, same=same, dropped=dropped)
    return small_plan().model_copy(update={"stability": stability})


def summary(plan: Plan) -> dict[str, float | int]:
    return summarise(evaluations(), TTFT, plan, parameters_before=8, parameters_after=6)


@pytest.mark.parametrize(
    ("rows", "title"),
    [
        (
            SIZE_ROWS,
            "10% of the calibration set gives the same ranking of triplets (tau 0.96),\n"
            "and drops the same layers in 72% of draws",
        ),
        (
            [size_row(20, 0.96, None)],
            "10% of the calibration set gives the same ranking of triplets (tau 0.96)",
        ),
        (
            [size_row(2, 0.5), size_row(100, 0.9)],
            "Even 50% of the calibration set ranks triplets differently (tau 0.90)",
        ),
        ([size_row(20, None)], "Triplets could not be ranked"),
    ],
)
def test_the_title_is_the_smallest_share_that_ranks_alike(
    rows: list[dict[str, Any]], title: str
) -> None:
    assert answer(rows) == title


@pytest.mark.parametrize("rows", [[], SIZE_ROWS[:1], [size_row(20, None, None)]])
def test_whatever_was_measured_can_be_drawn(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    calibration_size_figure(rows, tmp_path / "sizes.png")
    assert (tmp_path / "sizes.png").stat().st_size


@pytest.mark.parametrize(
    ("same", "shares", "text"),
    [
        (0.5, {2: 0.61, 5: 0.58}, "50% of 200 resamples drop the same layers; least certain:"
         " 5 (58%), 2 (61%)"),
        (0.87, None, "87% of 200 resamples drop the same layers; least certain: 5 (87%)"),
        (1, {2: 1, 5: 1}, "all 200 resamples drop the same layers"),
        (0, {2: 1}, "0% of 200 resamples drop the same layers; least certain: 5 (0%)"),
    ],
)  # fmt: skip
def test_the_least_certain_layers_are_named(
    same: float, shares: dict[int, float] | None, text: str
) -> None:
    plan = with_stability(same, shares)
    assert certainty(plan) == notes(plan, RULE)[-1] == text
    assert text in shown(layer_map_text(plan, RULE), width=200)
    assert certainty(small_plan()) == ""


def test_the_summary_and_its_table_hold_the_share_in_percent() -> None:
    sure = summary(with_stability())
    assert sure["selection_same"] == pytest.approx(87)
    assert "selection    87.0% of resamples drop the same layers" in shown(summary_table(sure))
    assert "selection_same" not in summary(small_plan())
    assert "selection" not in shown(summary_table(summary(small_plan())))


def test_the_summary_holds_the_smallest_share_that_ranks_alike_and_the_tau_of_a_tenth() -> None:
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
    ("taus", "texts"),
    [
        ({2: 0.96, 20: 0.99}, ["the same ranking as 10% (Kendall's tau 0.99)", "0.1% is enough"]),
        ({2: 0.7, 20: 0.8, 100: 0.98}, ["another ranking than 10%", "5% is enough (tau 0.98)"]),
        ({20: 0.8}, ["no smaller calibration set gave the same ranking"]),
    ],
)
def test_the_table_answers_whether_a_tenth_is_enough(
    taus: dict[int, float], texts: list[str]
) -> None:
    rows = [size_row(samples, tau) for samples, tau in taus.items()]
    lines = shown(summary_table(summary(small_plan()) | enough(rows, share=0.1)))
    assert all(text in " ".join(lines.split()) for text in texts)


def test_a_tenth_that_is_just_enough_is_said_once() -> None:
    rows = [size_row(20, 0.97)]
    assert "is enough" not in shown(summary_table(summary(small_plan()) | enough(rows, share=0.1)))


def test_sizes_that_were_not_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"calibration_size\.csv: no such file"):
        read_sizes(tmp_path / "calibration_size.csv")
