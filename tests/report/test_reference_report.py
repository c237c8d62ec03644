"""The report compares with the reference run where there is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report.report_cases import change_scores, evaluations, make_run, shown, summary_of
from sources_json import pinned_model

from interlace.evaluation.scores.result import Evaluation
from interlace.evaluation.scores.retention import relative_performance
from interlace.report.card.card import model_card
from interlace.report.facts.run import read_evaluations
from interlace.report.facts.summary import benchmarks_of, left_out
from interlace.report.terminal.summary import summary_table
from interlace.selection.reference import reference_plan, write_reference


@pytest.fixture
def results() -> dict[str, Evaluation]:
    """With a reference that scores five points more than the dense model."""
    reference = evaluations()["dense"]
    for name, score in reference.scores.items():
        change_scores(reference, name, score=score.score + 5)
    return evaluations() | {"dense_ft": reference}


def test_retention_is_reported_against_both(results: dict[str, Evaluation]) -> None:
    summary, plain = summary_of(evaluations=results), summary_of()
    assert {key: summary[key] for key in plain} == plain
    assert not [key for key in plain if "dense_ft" in key or "dense_sft" in key]
    for model in ("pruned", "tuned"):
        shared = {name: results[model].scores[name] for name in ("AI2D", "ChartQA")}
        expected = relative_performance(shared, results["dense_ft"].scores).percent
        assert summary[f"retention_{model}_of_dense_ft"] == pytest.approx(expected)
        assert summary[f"retention_{model}_of_dense_ft"] < summary[f"retention_{model}"]
    assert summary["score_dense_ft"] == pytest.approx(summary["score_dense"] + 5)
    assert summary["dense_ft/AI2D"] == summary["dense/AI2D"] + 5


def test_the_table_and_the_card_name_the_reference(results: dict[str, Evaluation]) -> None:
    run = make_run(evaluations=results)
    share = f"{run.summary['retention_tuned_of_dense_ft']:.1f}%"
    table = shown(summary_table(run.summary))
    assert "dense-ft" in table and share in table and "…" not in table
    card = model_card(run, "tuned")
    assert "| dense | pruned | tuned | Dense-FT | of dense | of Dense-FT |" in card
    assert f"| of Dense-FT's |  | {share} |" in card
    for text in (card, model_card(run, "pruned")):
        assert "Dense-FT is the dense model with its last layers" in text


def test_categories_are_compared_with_both(results: dict[str, Evaluation]) -> None:
    for evaluation in results.values():
        change_scores(evaluation, "ChartQA", category="GVQA")
    summary = summary_of(evaluations=results)
    for model, score in (("pruned", 20), ("tuned", 50)):
        retention = f"category_retention_{model}"
        assert summary[f"{retention}/GVQA"] == pytest.approx(100 * score / 50)
        assert summary[f"{retention}_of_dense_ft/GVQA"] == pytest.approx(100 * score / 55)


def test_what_the_reference_lacks_counts_for_none(results: dict[str, Evaluation]) -> None:
    del results["dense_ft"].scores["AI2D"]
    summary = summary_of(evaluations=results)
    assert summary["score_tuned"] == results["tuned"].scores["ChartQA"].score
    assert "AI2D" in benchmarks_of(summary) and "AI2D" in left_out(results)
    change_scores(results["dense_ft"], score=0.0)
    assert "| of Dense-FT's |  | \u2013 |" in model_card(make_run(evaluations=results), "tuned")


def test_evaluations_name_the_reference_by_its_plan(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    for name in ("dense", "pruned", "tuned", "reference"):
        evaluation = evaluations()["dense"].as_json() | {"model": name}
        (tmp_path / f"evaluation/{name}.json").write_text(json.dumps(evaluation))
    assert set(read_evaluations(tmp_path)) == {"dense", "pruned", "tuned"}
    plan = reference_plan("dense-sft", 0.25, None, pinned_model(n_layers=24))
    write_reference(tmp_path / "reference_plan.json", plan)
    assert read_evaluations(tmp_path)["dense_sft"].model == "reference"
