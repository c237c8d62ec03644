from __future__ import annotations

import io
import re

import pytest
from report.report_cases import TTFT, evaluations, plan, small_plan
from rich.cells import cell_len
from rich.console import Console, RenderableType

from interlace.report.drawings import illustration
from interlace.report.profile import profile_text
from interlace.report.roles import Role, layer_roles, roles_present
from interlace.report.summary import left_out, summarise
from interlace.report.table import summary_table
from interlace.report.terminal import layer_map_text, shortfall_note


def shown(renderable: RenderableType, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def table(width: int = 80) -> list[str]:
    summary = summarise(
        evaluations(), TTFT, small_plan(), parameters_before=8_000_000, parameters_after=6_000_000
    )
    return shown(summary_table(summary, left_out(evaluations())), width)


def test_each_layer_has_its_role() -> None:
    letters = "".join(role.letter for role in layer_roles(small_plan()))
    assert letters == "PTDAFDTFF"


def test_a_protected_layer_that_is_tuned_is_shown_as_tuned() -> None:
    tuned = small_plan().model_copy(update={"protected": [0, 1]})
    assert layer_roles(tuned)[1] is Role.TUNE


def test_the_legend_names_only_what_occurs() -> None:
    assert Role.ANCHOR in roles_present(plan())
    assert Role.ANCHOR not in roles_present(plan("random"))


def test_the_map_shows_roles_groups_and_what_is_left() -> None:
    lines = shown(layer_map_text(small_plan()))
    rows = {line.split()[0]: line[9:] for line in lines[1:]}
    assert rows["dense"].strip() == "PTDAFDTFF"
    assert rows["pruned"].strip() == "PTAFTFF"
    assert rows["groups"] == " └─┘ └┘"
    assert rows["layer"] == "0    5"
    assert "D dropped 2" in "\n".join(lines)


def test_a_shortfall_is_said() -> None:
    assert "1 of 2 drops come from pairs" in shortfall_note(small_plan())
    assert shortfall_note(plan()) == ""
    short = small_plan().shortfall.model_copy(update={"missing": 1, "wanted": 3})
    assert "1 not made" in shortfall_note(small_plan().model_copy(update={"shortfall": short}))


@pytest.mark.parametrize("width", [80, 160])
def test_everything_fits_the_terminal(width: int) -> None:
    views = [layer_map_text(plan()), profile_text(illustration())]
    lines = [line for view in views for line in shown(view, width)] + table(width)
    assert max(cell_len(line.rstrip()) for line in lines) <= width
    assert sum(line.startswith("dense") for line in lines) == 1


def test_a_deep_decoder_is_broken_into_lines() -> None:
    deep = plan().model_copy(
        update={"n_layers": 100, "freeze": [*plan().freeze, *range(24, 100)], "protected": []}
    )
    dense = [line[9:] for line in shown(layer_map_text(deep)) if line.startswith("dense")]
    assert [len(line.rstrip()) for line in dense] == [60, 40]


def test_the_profile_rises_with_the_scores() -> None:
    bars = next(line[9:] for line in shown(profile_text(illustration())) if line.startswith("S_1"))
    scores = list(illustration().of_span(1).values())
    assert len(bars) == len(scores)
    assert bars[scores.index(max(scores))] == max(bars) == "█"
    assert bars[scores.index(max(scores))] > bars[scores.index(min(scores))]


def test_the_table_shows_scores_retention_and_speed() -> None:
    text = "\n".join(table())
    assert re.search(r"AI2D\s+80\.0\s+40\.0\s+72\.0\s+50\.0%\s+90\.0%", text)
    assert re.search(r"mean\s+65\.0\s+30\.0\s+61\.0\s+45\.0%\s+95\.0%", text)
    assert "9 → 7" in text and "8.00M → 6.00M" in text and "-25.0%" in text
    assert "1.25x as fast [1.21, 1.29], ideal 1.28x" in text


def test_what_is_left_out_is_named_and_not_zero() -> None:
    text = "\n".join(table())
    assert re.search(r"POPE\s+90\.0\s+81\.0\s+\u2013", text)
    assert "MIA-Bench: no judge is configured" in text
    assert "POPE: tuned: no result for the model" in text


def test_without_scores_or_times_the_rest_is_shown() -> None:
    results = evaluations()
    for result in results.values():
        result["scores"] = {}
    summary = summarise(results, {}, plan(), parameters_before=100, parameters_after=80)
    text = "\n".join(shown(summary_table(summary)))
    assert "24 → 18" in text and "first token" not in text
