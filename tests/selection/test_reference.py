"""A reference run tunes the dense model, and depends on nothing that does not change it."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from healing.test_finetune import RECIPE, project, weights
from report.report_cases import TTFT, card_run, change_scores, evaluations, small_plan
from rich.console import Console

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.evaluation.scores.retention import relative_performance
from interlace.healing.heal import train_reference
from interlace.params.healing import Recipe
from interlace.params.whole import Params
from interlace.plan.record import Decision, read_reference
from interlace.report.card.card import model_card
from interlace.report.facts.run import read_evaluations
from interlace.report.facts.summary import benchmarks_of, left_out, summarise
from interlace.report.terminal.summary import summary_table
from interlace.selection.feasible import check_asked
from interlace.selection.reference import reference_plan, write_reference

__all__ = ["project"]
PINNED = {"n_layers": 24, "deepstack_layers": 3}


def test_dense_ft_tunes_as_many_last_layers_as_go() -> None:
    plan = reference_plan("dense-ft", 0.25, None, PINNED)
    assert plan is not None
    assert (plan.drop, plan.tune) == ([], list(range(18, 24)))
    assert plan.method == "dense-ft"


def test_dense_sft_tunes_all_layers() -> None:
    plan = reference_plan("dense-sft", 0.25, None, PINNED)
    assert plan is not None
    assert (plan.drop, plan.tune, plan.freeze) == ([], list(range(24)), [])
    assert plan.method == "dense-sft"


def test_there_is_none_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert reference_plan("none", 0.25, None, PINNED) is None
    write_reference(tmp_path / "plan.json", None)
    assert read_reference(tmp_path / "plan.json") is None


def test_ratios_that_drop_as_many_layers_have_the_same_plan() -> None:
    plans = [reference_plan("dense-ft", ratio, None, PINNED) for ratio in (0.25, 0.26, 0.3)]
    assert plans[0] == plans[1] != plans[2]


def test_dense_sft_does_not_depend_on_the_ratio() -> None:
    decision = Decision(budget="params", target=0.8, drops=5, values={}, how="", reason="")
    plans = [reference_plan("dense-sft", ratio, None, PINNED) for ratio in (0.1, 0.4)]
    plans.append(reference_plan("dense-sft", "auto", decision, PINNED))
    assert plans[0] == plans[1]
    assert plans[2] is not None and plans[2].tune == list(range(24))


def test_a_budget_decides_for_dense_ft() -> None:
    decision = Decision(budget="params", target=0.8, drops=5, values={}, how="", reason="")
    plan = reference_plan("dense-ft", "auto", decision, PINNED)
    assert plan is not None and plan.tune == list(range(19, 24))


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    plan = reference_plan("dense-sft", 0.25, None, PINNED)
    write_reference(tmp_path / "plan.json", plan)
    assert read_reference(tmp_path / "plan.json") == plan


def test_a_missing_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `dvc repro reference_plan`"):
        read_reference(tmp_path / "plan.json")


def test_a_reference_without_training_is_refused() -> None:
    asked: dict[str, Any] = {"model": {"id": "m"}, "data": {"id": "d"}, "reference": "dense-ft"}
    check_asked(Params(**asked), 24, 3)
    with pytest.raises(InputError, match="reference = dense-ft is trained end to end"):
        check_asked(Params(**asked, finetune={"max_steps": 0}), 24, 3)


def test_the_recipe_tunes_the_planned_layers_of_the_dense_model(
    project: Path, dense_dir: Path, tmp_path: Path
) -> None:
    plan = reference_plan("dense-ft", 0.34, None, {"n_layers": 6, "deepstack_layers": 3})
    assert plan is not None
    train_reference(
        Checkpoint(dense_dir),
        project / "data/train",
        tmp_path / "reference",
        plan=plan,
        params=Recipe(**(RECIPE | {"max_steps": 2})),
        seed=0,
        scratch=tmp_path / "scratch",
    )
    before, after = weights(dense_dir), weights(tmp_path / "reference")
    moved = {name.split(".")[3] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"4", "5"}


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
    write_reference(
        tmp_path / "reference_plan.json", reference_plan("dense-sft", 0.25, None, PINNED)
    )
    assert read_evaluations(tmp_path)["dense_sft"].model == "reference"
