from __future__ import annotations

import re
from dataclasses import replace

import pytest
from report.report_cases import (
    RULE,
    TTFT,
    UNSURE,
    evaluations,
    full_scores,
    illustration,
    in_rounds,
    plan,
    shown,
    shown_lines,
    small_plan,
)
from rich.cells import cell_len

from interlace.methods.registry import METHODS
from interlace.report.facts.roles import Role, layer_roles, roles_present
from interlace.report.facts.summary import left_out, summarise
from interlace.report.terminal.plan import groups_table, layer_map_text
from interlace.report.terminal.profile import profile_text
from interlace.report.terminal.summary import summary_table
from interlace.scores.table import NATIVE
from interlace.selection.select import select


def table(width: int = 80) -> list[str]:
    summary = summarise(
        evaluations(), TTFT, small_plan(), parameters_before=8_000_000, parameters_after=6_000_000
    )
    return shown_lines(summary_table(summary, left_out(evaluations())), width)


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
    lines = shown_lines(layer_map_text(small_plan(), RULE))
    rows = {line.split()[0]: line[9:] for line in lines[1:]}
    assert rows["dense"].strip() == "PTDAFDTFF"
    assert rows["pruned"].strip() == "PTAFTFF"
    assert rows["groups"] == " └─┘ └┘"
    assert rows["layer"] == "0    5"
    assert "D dropped 2" in "\n".join(lines)


def test_the_map_says_what_was_asked_and_what_came_of_it() -> None:
    lines = shown_lines(layer_map_text(plan().model_copy(update={"deepstack_layers": 3}), RULE))
    assert lines[:2] == ["interlace: 25% of 24 layers", "24 layers, 18 kept, 6 tuned"]
    assert lines[-1] == "3 protected: 0 to 2 (image features are added after them)"


def test_brackets_hold_only_the_layers_that_belong() -> None:
    lines = shown_lines(layer_map_text(in_rounds(), RULE))
    rows = {line[:9].strip(): line[9:] for line in lines}
    assert rows["dense"] == "FFFTDDDDATTT"
    assert rows["round 1"] == "    └─┘"
    assert rows["round 2"] == "   └   ─┘"


def test_nothing_dropped_is_shown_as_nothing_dropped() -> None:
    lines = shown_lines(layer_map_text(plan("dense-ft"), RULE))
    assert lines[1] == "24 layers, all kept, 6 tuned"
    assert not any(line.startswith("groups") for line in lines)
    assert groups_table(plan("dense-ft")) is None


def test_the_table_gives_each_groups_reason_in_the_order_of_decision() -> None:
    table = groups_table(small_plan())
    assert table
    heading, _, *rows = (line.split() for line in shown_lines(table))
    assert " ".join(heading) == "# layers kind score S_1 of the two dropped tuned anchor"
    assert " ".join(rows[0]) == "1 1\u20133 triplet S_3 0.9800 0.9700 0.9900 2 1 3"
    assert " ".join(rows[1]) == "2 5, 6 pair S_2 0.9500 0.9900 0.9700 5 6"


def test_the_table_gives_each_ranked_layers_score() -> None:
    ranked = plan("shortgpt")
    table = groups_table(ranked)
    assert table
    heading, _, *rows = (line.split() for line in shown_lines(table))
    assert heading == ["#", "kind", "BI", "dropped"]
    assert [int(row[-1]) for row in rows] == [group.first for group in ranked.groups]
    assert [float(row[2]) for row in rows] == pytest.approx(
        [group.score for group in ranked.groups], rel=1e-3
    )


@pytest.mark.parametrize("method", ["random", "dense-ft"])
def test_without_scores_there_is_no_table_of_reasons(method: str) -> None:
    assert groups_table(plan(method)) is None


def test_the_table_says_which_round_a_group_is_of() -> None:
    table = groups_table(in_rounds())
    assert table
    heading, _, *rows = (line.split() for line in shown_lines(table))
    assert heading[1] == "round" and [row[1] for row in rows] == ["1", "2"]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "manual"])
def test_every_methods_plan_fits_80_columns(method: str) -> None:
    made = select(full_scores(64, 3), method=method)
    views = [layer_map_text(made, RULE), groups_table(made) or ""]
    lines = [line for view in views for line in shown_lines(view, 200)[-40:]]
    maps = [line.rstrip() for line in lines if not line.startswith(("4 protected",))]
    assert max(map(cell_len, maps)) <= 80


def test_rounds_fit_80_columns() -> None:
    table = groups_table(in_rounds())
    assert table and max(cell_len(line.rstrip()) for line in shown_lines(table, 200)) <= 80


def test_the_profile_holds_no_other_criterion_and_no_longer_span() -> None:
    text = shown(profile_text(full_scores()))
    assert re.findall(r"^S_\d", text, re.MULTILINE) == ["S_1", "S_2", "S_3"] * 2


def test_the_profile_of_layers_alone_shows_layers_alone() -> None:
    every = full_scores().values.items()
    alone = {key: v for key, v in every if key[0] != NATIVE or key[2] == 1}
    text = shown(profile_text(replace(full_scores(), values=alone)))
    assert set(re.findall(r"S_\d", text)) == {"S_1"}


@pytest.mark.parametrize("width", [80, 160])
def test_everything_fits_the_terminal(width: int) -> None:
    views = [layer_map_text(plan(), RULE), profile_text(illustration())]
    lines = [line for view in views for line in shown_lines(view, width)] + table(width)
    assert max(cell_len(line.rstrip()) for line in lines) <= width
    assert sum(line.startswith("dense") for line in lines) == 1


def test_a_deep_decoder_is_broken_into_lines() -> None:
    deep = plan().model_copy(
        update={"n_layers": 100, "freeze": [*plan().freeze, *range(24, 100)], "protected": []}
    )
    dense = [
        line[9:] for line in shown_lines(layer_map_text(deep, RULE)) if line.startswith("dense")
    ]
    assert [len(line.rstrip()) for line in dense] == [60, 40]


def test_the_profile_rises_with_the_scores() -> None:
    bars = next(
        line[9:] for line in shown_lines(profile_text(illustration())) if line.startswith("S_1")
    )
    scores = list(illustration().of_span(1).values())
    assert len(bars) == len(scores)
    assert bars[scores.index(max(scores))] == max(bars) == "█"
    assert bars[scores.index(max(scores))] > bars[scores.index(min(scores))]


def test_the_table_shows_scores_retention_and_speed() -> None:
    text = "\n".join(table())
    assert re.search(r"AI2D\s+80\.0\s+40\.0\s+72\.0\s+50\.0%\s+90\.0%", text)
    assert re.search(r"mean\s+65\.0\s+30\.0\s+61\.0\s+45\.0%\s+95\.0%", text)
    assert "9 → 7" in text and "8.00M → 6.00M" in text and "-25.0%" in text
    assert "1.25x speedup [1.21, 1.29], ideal 1.28x" in text


def test_what_is_left_out_is_named_and_not_zero() -> None:
    text = "\n".join(table())
    assert re.search(r"POPE\s+90\.0\s+81\.0\s+\u2013", text)
    assert "MIA-Bench: no judge is configured" in text
    assert "POPE: tuned: no result for the model" in text


def test_without_scores_or_times_the_rest_is_shown() -> None:
    results = evaluations()
    for result in results.values():
        result.scores.clear()
    summary = summarise(results, {}, plan(), parameters_before=100, parameters_after=80)
    text = shown(summary_table(summary))
    assert "24 → 18" in text and "first token" not in text


def test_a_speedup_that_is_too_unsure_has_a_line_of_its_own() -> None:
    summary = summarise(evaluations(), UNSURE, plan(), parameters_before=2, parameters_after=1)
    line = next(line for line in shown_lines(summary_table(summary)) if "first token" in line)
    assert "speedup uncertain: 1.02x to 1.43x, ideal 1.28x   (34.0 → 27.2 ms)" in line
