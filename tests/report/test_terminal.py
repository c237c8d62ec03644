from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from methods import made_up
from report.report_cases import (
    UNSURE,
    evaluations,
    full_scores,
    illustration,
    in_rounds,
    plan,
    shown,
    shown_lines,
    small_plan,
    summary_of,
    without_scores,
)
from rich.cells import cell_len

from interlace.methods.registry import METHODS
from interlace.plan.record import Plan
from interlace.report.facts.roles import Role, layer_roles, roles_present
from interlace.report.facts.summary import left_out
from interlace.report.facts.wording import NONE
from interlace.report.terminal.plan import groups_table, layer_map_text
from interlace.report.terminal.profile import profile_text
from interlace.report.terminal.summary import summary_table
from interlace.scores.table import NATIVE, Scores
from interlace.selection.select import select


def layer_map(plan: Plan) -> list[str]:
    return shown_lines(layer_map_text(plan))


def group_rows(plan: Plan) -> list[list[str]]:
    """The table's headings, then its rows, in words."""
    table = groups_table(plan)
    assert table
    heading, _, *rows = (line.split() for line in shown_lines(table))
    return [heading, *rows]


def summary_lines(width: int = 80) -> list[str]:
    return shown_lines(summary_table(summary_of(), left_out(evaluations())), width)


def test_each_layer_has_its_role() -> None:
    assert "".join(role.letter for role in layer_roles(small_plan())) == "PTDAFDTFF"
    tuned = small_plan().model_copy(update={"protected": [0, 1]})
    assert layer_roles(tuned)[1] is Role.TUNE
    assert Role.ANCHOR in roles_present(plan())
    assert Role.ANCHOR not in roles_present(plan("random"))


def test_a_pair_whose_second_layer_has_no_score_says_so() -> None:
    values = {("cosine", layer, 1): score for layer, score in enumerate([0.5, 0.6, 0.9])}
    options: Any = {"method": "interlace-tn", "drops": 1, "protect_first": 0, "protect_last": 0}
    (_, row) = group_rows(select(Scores(4, 0, values, {}), **options))
    assert row[1:] == ["2,", "3", "pair", "0.9000", "0.9000", NONE, "2", "3"]


def test_the_map_shows_roles_groups_and_the_pruned_decoder() -> None:
    lines = layer_map(small_plan())
    rows = {line.split()[0]: line[9:].rstrip() for line in lines[1:]}
    assert (rows["dense"], rows["pruned"]) == ("PTDAFDTFF", "PTAFTFF")
    assert (rows["groups"], rows["layer"]) == (" └─┘ └┘", "0    5")
    assert "D dropped 2" in "\n".join(lines)


def test_the_map_has_the_request_the_outcome_and_the_notes() -> None:
    lines = layer_map(plan().model_copy(update={"deepstack_layers": 3}))
    assert lines[:2] == ["interlace: 25% of 24 layers", "24 layers, 18 kept, 6 tuned"]
    assert any(line.startswith("3 protected: 0 to 2") for line in lines)
    lines = layer_map(plan("dense-ft"))
    assert lines[1] == "24 layers, all kept, 6 tuned"
    assert not any(line.startswith("groups") for line in lines)


def test_brackets_hold_only_the_layers_that_belong() -> None:
    rows = {line[:9].strip(): line[9:] for line in layer_map(in_rounds())}
    assert rows["dense"] == "FFFTDDDDATTT"
    assert (rows["round 1"], rows["round 2"]) == ("    └─┘", "   └   ─┘")


def test_a_deep_decoder_is_broken_into_lines() -> None:
    freeze = [*plan().freeze, *range(24, 100)]
    deep = plan().model_copy(update={"n_layers": 100, "freeze": freeze, "protected": []})
    dense = [line[9:].rstrip() for line in layer_map(deep) if line.startswith("dense")]
    assert [len(line) for line in dense] == [60, 40]


def test_each_group_has_its_reason_in_the_order_of_decision() -> None:
    assert [row[1] for row in group_rows(in_rounds())] == ["round", "1", "2"]
    assert [" ".join(row) for row in group_rows(small_plan())] == [
        "# layers kind score S_1 of the two dropped tuned anchor",
        "1 1\u20133 triplet S_3 0.9800 0.9700 0.9900 2 1 3",
        "2 5, 6 pair S_2 0.9500 0.9900 0.9700 5 6",
    ]


def test_each_ranked_layer_has_its_score() -> None:
    ranked = plan("shortgpt")
    heading, *rows = group_rows(ranked)
    assert heading == ["#", "kind", "BI", "dropped"]
    assert [int(row[-1]) for row in rows] == [group.first for group in ranked.groups]
    scores = [group.score for group in ranked.groups]
    assert [float(row[2]) for row in rows] == pytest.approx(scores, rel=1e-3)


@pytest.mark.parametrize("method", ["random", "dense-ft"])
def test_without_scores_there_is_no_table_of_reasons(method: str) -> None:
    assert groups_table(plan(method)) is None


@pytest.mark.parametrize("method", [*(name for name in METHODS if name != "manual"), "in rounds"])
def test_every_plan_fits_80_columns(method: str) -> None:
    plan = in_rounds() if method == "in rounds" else select(full_scores(64, 3), method=method)
    views = [layer_map_text(plan), groups_table(plan) or ""]
    lines = [line.rstrip() for view in views for line in shown_lines(view, 200)]
    assert max(cell_len(line) for line in lines if not line.startswith("4 protected")) <= 80


@pytest.mark.parametrize("width", [80, 160])
def test_profile_and_summary_fit_the_terminal(width: int) -> None:
    lines = shown_lines(profile_text(illustration()), width) + summary_lines(width)
    assert max(cell_len(line.rstrip()) for line in lines) <= width


def test_the_profile_holds_no_other_criterion_and_no_longer_span() -> None:
    text = shown(profile_text(full_scores()))
    assert re.findall(r"^S_\d", text, re.MULTILINE) == ["S_1", "S_2", "S_3"] * 2
    values = full_scores().values.items()
    layers = {key: value for key, value in values if key[0] != NATIVE or key[2] == 1}
    text = shown(profile_text(replace(full_scores(), values=layers)))
    assert set(re.findall(r"S_\d", text)) == {"S_1"}


def test_the_profile_names_the_layers_around_a_massive_activation() -> None:
    lines = shown_lines(profile_text(made_up.with_sinks(illustration(), [11], [22, 23])))
    assert (
        lines[-1]
        == "attention sink (a token of huge norm): made by layer 11, ended by layers 22, 23"
    )
    for scores in (illustration(), made_up.with_sinks(illustration(), [])):
        assert "massive" not in shown(profile_text(scores))


def test_the_profile_rises_with_the_scores() -> None:
    lines = shown_lines(profile_text(illustration()))
    bars = next(line[9:] for line in lines if line.startswith("S_1"))
    scores = list(illustration().of_span(1).values())
    assert len(bars) == len(scores)
    assert len(next(line[9:] for line in lines if line.startswith("S_2"))) == len(scores) - 1
    assert bars[scores.index(max(scores))] == max(bars) == "█"
    assert bars[scores.index(max(scores))] > bars[scores.index(min(scores))]


def test_the_table_shows_scores_retention_sizes_and_speed() -> None:
    text = "\n".join(summary_lines())
    assert re.search(r"AI2D\s+80\.0\s+40\.0\s+72\.0\s+50\.0%\s+90\.0%", text)
    assert re.search(r"mean\s+65\.0\s+30\.0\s+61\.0\s+45\.0%\s+95\.0%", text)
    assert "9 → 7" in text and "1.00K → 800" in text and "-20.0%" in text
    assert "1.25x speedup [1.21, 1.29], ideal 1.28x" in text
    assert "1.31x speedup, ideal 1.33x" in text


def test_what_is_left_out_is_named_and_not_zero() -> None:
    text = "\n".join(summary_lines())
    assert re.search(r"POPE\s+90\.0\s+81\.0\s+\u2013", text)
    assert "MIA-Bench: no judge is configured" in text
    assert "POPE: tuned: no result for the model" in text


def test_without_scores_or_times_the_rest_is_shown() -> None:
    text = shown(summary_table(summary_of(evaluations=without_scores(), ttft={})))
    assert "9 → 7" in text and "first token" not in text


def test_an_uncertain_speedup_is_an_interval() -> None:
    text = shown(summary_table(summary_of(ttft=UNSURE)))
    assert re.search("first token.*uncertain: 1.02x to 1.43x, .*34.0 → 27.2 ms", text)
