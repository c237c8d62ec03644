"""What is said and drawn about how sure a choice is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from report.report_cases import RULE, TTFT, evaluations, small_plan
from rich.console import Console, RenderableType

from interlace.errors import InputError
from interlace.plan.record import Plan, Stability
from interlace.report.facts.calibration import enough, read_sizes
from interlace.report.facts.decision import certainty, notes
from interlace.report.facts.summary import summarise
from interlace.report.figures.calibration import answer, calibration_size_figure
from interlace.report.terminal.plan import layer_map_text
from interlace.report.terminal.summary import summary_table
from interlace.selection.calibration import SIZES


def row(samples: int, tau: float | None, same: float | None = 0.5) -> dict[str, Any]:
    """One size out of 200 samples."""
    ends = {"": 0.0, "_low": -0.01, "_high": 0.004}
    taus = {
        f"tau_{p}{end}": None if tau is None else tau + by
        for p in (1, 3)
        for end, by in ends.items()
    }
    return {"samples": samples, "share": samples / 200, **taus, "same": same}


ROWS = [row(2, 0.7, 0.1), row(20, 0.96, 0.72), row(100, 0.99, 1.0)]


def sizes(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SIZES)


def unsure(same: float = 0.87, **dropped: float) -> Plan:
    """The small plan, which drops 2 and 5; 7 goes where 5 does not."""
    shares = {2: dropped.get("two", 1.0), 5: dropped.get("five", 0.87), 7: 0.13}
    sure = Stability(draws=200, same=same, dropped=shares)
    return small_plan().model_copy(update={"stability": sure})


def shown(renderable: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


# The figure


def test_the_title_names_the_smallest_part_that_ranks_as_the_whole_does() -> None:
    assert answer(ROWS) == (
        "10% of the calibration set gives the same ranking of triplets (tau 0.96),\n"
        "and drops the same layers in 72% of draws"
    )


def test_the_title_says_so_where_no_part_does() -> None:
    assert answer([row(2, 0.5), row(100, 0.9)]) == (
        "Even 50% of the calibration set ranks triplets differently (tau 0.90)"
    )


def test_the_title_promises_nothing_that_was_not_measured() -> None:
    assert answer([row(20, 0.96, None)]).endswith("ranking of triplets (tau 0.96)")
    assert answer([row(20, None)]) == "Triplets could not be ranked"


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_sizes_give_the_same_bytes(kind: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        calibration_size_figure(ROWS, tmp_path / f"{name}.{kind}")
    one, two = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    "rows", [[], ROWS[:1], [row(20, None, None)], [row(2, 0.9, None), row(20, 0.99, None)]]
)
def test_whatever_was_measured_can_be_drawn(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    calibration_size_figure(rows, tmp_path / "sizes.png")
    assert (tmp_path / "sizes.png").stat().st_size


# In words


def test_the_least_certain_layers_are_named() -> None:
    assert certainty(unsure(0.5, two=0.61, five=0.58)) == (
        "50% of 200 resamples drop the same layers; least certain: 5 (58%), 2 (61%)"
    )


def test_layers_that_always_go_are_not_named() -> None:
    assert certainty(unsure()).endswith("; least certain: 5 (87%)")


def test_a_certain_choice_is_said_to_be_one() -> None:
    sure = Stability(draws=200, same=1, dropped={2: 1, 5: 1})
    plan = small_plan().model_copy(update={"stability": sure})
    assert certainty(plan) == "all 200 resamples drop the same layers"


def test_a_layer_that_no_other_draw_drops_is_the_least_certain() -> None:
    sure = Stability(draws=4, same=0, dropped={2: 1})
    assert "5 (0%)" in certainty(small_plan().model_copy(update={"stability": sure}))


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert certainty(small_plan()) == ""
    assert not any("resamples" in note for note in notes(small_plan(), RULE))


def test_the_map_of_layers_says_how_sure_it_is() -> None:
    assert notes(unsure(), RULE)[-1] == certainty(unsure())
    assert certainty(unsure()) in shown(layer_map_text(unsure(), RULE), width=200)


# In numbers


def summary(plan: Plan) -> dict[str, float | int]:
    return summarise(evaluations(), TTFT, plan, parameters_before=8, parameters_after=6)


def test_the_summary_holds_the_share_in_percent() -> None:
    assert summary(unsure())["selection_same"] == pytest.approx(87)
    assert "selection_same" not in summary(small_plan())


def test_the_table_has_a_line_for_it() -> None:
    line = "selection    87.0% of resamples drop the same layers"
    assert line in shown(summary_table(summary(unsure())))
    assert "selection" not in shown(summary_table(summary(small_plan())))


def test_the_summary_holds_the_smallest_part_that_ranks_alike_and_what_a_tenth_does() -> None:
    assert enough([row(2, 0.96), *ROWS[1:]], share=0.1) == pytest.approx(
        {
            "calibration_share": 10,
            "calibration_tenth_tau": 0.96,
            "calibration_enough_share": 0.1,
            "calibration_enough_tau": 0.96,
        }
    )


def test_the_summary_leaves_out_what_was_not_measured() -> None:
    assert enough([], share=0.1) == enough([row(20, None)], share=0.1) == {}
    assert enough([row(100, 0.9)], share=0.1) == {"calibration_share": 10}


def calibration(*rows: dict[str, Any]) -> str:
    """The table's line, without the spaces in front of its second row."""
    text = shown(summary_table(summary(small_plan()) | enough(rows, share=0.1)))
    lines = text[text.index("calibration") : text.index("first token")].splitlines()
    return " / ".join(line.strip() for line in lines if line.strip())


def test_the_table_answers_whether_a_tenth_is_enough() -> None:
    assert calibration(row(2, 0.96), row(20, 0.99)) == (
        "calibration  1% of the training set gives the same ranking as 10% (Kendall's tau / 0.99)"
        " / 0.1% is enough (tau 0.96)"
    )
    assert calibration(row(2, 0.7), row(20, 0.8), row(100, 0.98)) == (
        "calibration  1% of the training set gives another ranking than 10% (Kendall's / tau 0.80)"
        " / 5% is enough (tau 0.98)"
    )
    assert calibration(row(20, 0.97)).endswith("(Kendall's tau / 0.97)")
    said = "no smaller calibration set gave the same ranking"
    assert calibration(row(20, 0.8)).endswith(said)


def test_sizes_that_were_not_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"calibration_size\.csv: no such file; run `dvc repro`"):
        read_sizes(tmp_path / "calibration_size.csv")
