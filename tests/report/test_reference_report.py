"""The report compares with the reference run where there is one."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from report.report_cases import TTFT, card_run, change_scores, evaluations, small_plan
from rich.console import Console
from sources_json import pinned_model

from interlace.evaluation.scores.retention import relative_performance
from interlace.report.card.card import model_card
from interlace.report.facts.run import read_evaluations
from interlace.report.facts.summary import benchmarks_of, left_out, summarise
from interlace.report.terminal.summary import summary_table
from interlace.selection.reference import reference_plan, write_reference


@pytest.fixture
def results() -> dict[str, Any]:
    reference = evaluations()["dense"]
    for name, score in reference.scores.items():
        change_scores(reference, name, score=score.score + 5)
    return evaluations() | {"dense_ft": reference}


def test_retention_is_reported_against_both_and_names_the_reference(results: Any) -> None:
    summary = summarise(results, TTFT, small_plan(), parameters_before=10, parameters_after=8)
    plain = summarise(evaluations(), TTFT, small_plan(), parameters_before=10, parameters_after=8)
    assert {key: summary[key] for key in plain} == plain
    for model in ("pruned", "tuned"):
        shared = {n: results[model].scores[n] for n in ("AI2D", "ChartQA")}
        expected = relative_performance(shared, results["dense_ft"].scores)
        assert summary[f"retention_{model}_of_dense_ft"] == pytest.approx(expected.percent)
        assert summary[f"retention_{model}_of_dense_ft"] < summary[f"retention_{model}"]
    assert summary["score_dense_ft"] == pytest.approx(summary["score_dense"] + 5)
    assert summary["dense_ft/AI2D"] == summary["dense/AI2D"] + 5


def test_the_table_and_the_card_name_the_reference(results: Any) -> None:
    plan = small_plan()
    summary = summarise(results, TTFT, plan, parameters_before=1000, parameters_after=800)
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(summary_table(summary))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "dense-ft" in shown and f"{summary['retention_tuned_of_dense_ft']:.1f}%" in shown
    assert "…" not in shown
    run = dataclasses.replace(card_run(plan), summary=summary, evaluations=results)
    card = model_card(run, "tuned")
    assert "| dense | pruned | tuned | Dense-FT | of dense | of Dense-FT |" in card
    assert "Dense-FT is the dense model with its last layers, as many as the ratio is" in card
    assert "not among them" not in card
    share = summary["retention_tuned_of_dense_ft"]
    assert f"| of Dense-FT's |  | {share:.1f}% |" in card
    assert "Dense-FT is the dense model" in model_card(run, "pruned")


def test_without_a_reference_nothing_is_said_of_one() -> None:
    summary = summarise(evaluations(), TTFT, small_plan(), parameters_before=10, parameters_after=8)
    assert not [key for key in summary if "dense_ft" in key or "dense_sft" in key]


def test_a_benchmark_that_the_reference_lacks_counts_for_none(results: Any) -> None:
    del results["dense_ft"].scores["AI2D"]
    summary = summarise(results, TTFT, small_plan(), parameters_before=10, parameters_after=8)
    assert summary["score_tuned"] == results["tuned"].scores["ChartQA"].score
    assert "AI2D" in benchmarks_of(summary) and "AI2D" in left_out(results)


def test_the_card_of_a_run_whose_reference_scores_nothing_is_written(results: Any) -> None:
    change_scores(results["dense_ft"], score=0.0)
    summary = summarise(results, TTFT, small_plan(), parameters_before=10, parameters_after=8)
    run = dataclasses.replace(card_run(small_plan()), summary=summary, evaluations=results)
    assert "| of Dense-FT's |  | \u2013 |" in model_card(run, "tuned")


def test_evaluations_name_the_reference_by_its_plan(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    for name in ("dense", "pruned", "tuned", "reference"):
        evaluation = evaluations()["dense"].as_json() | {"model": name}
        (tmp_path / f"evaluation/{name}.json").write_text(json.dumps(evaluation))
    assert set(read_evaluations(tmp_path)) == {"dense", "pruned", "tuned"}
    plan = reference_plan("dense-sft", 0.25, None, pinned_model(n_layers=24))
    write_reference(tmp_path / "reference_plan.json", plan)
    assert read_evaluations(tmp_path)["dense_sft"].model == "reference"
