from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from report.report_cases import UNSURE, change_scores, evaluations, plan, summary_of, without_scores

from interlace.report.facts.summary import Metrics, benchmarks_of


@pytest.fixture
def summary() -> Metrics:
    return summary_of()


def test_means_are_over_what_all_three_models_have(summary: Metrics) -> None:
    assert summary["benchmarks"] == 2  # POPE has no tuned score
    assert summary["score_dense"] == pytest.approx((80 + 50) / 2)
    assert summary["score_pruned"] == pytest.approx((40 + 20) / 2)
    assert summary["score_tuned"] == pytest.approx((72 + 50) / 2)
    assert summary["score_dense_error"] == pytest.approx(np.hypot(1.5, 1.5) / 2)
    assert summary["samples"] == 200


def test_retention_is_a_mean_of_ratios_against_dense(summary: Metrics) -> None:
    assert summary["retention_pruned"] == pytest.approx(100 * (40 / 80 + 20 / 50) / 2)
    assert summary["retention_tuned"] == pytest.approx(100 * (72 / 80 + 50 / 50) / 2)
    assert summary["retention_tuned/AI2D"] == pytest.approx(90)


def test_each_score_is_there(summary: Metrics) -> None:
    assert summary["dense/POPE"] == 90 and summary["pruned/POPE"] == 81
    assert "tuned/POPE" not in summary and "retention_tuned/POPE" not in summary
    assert (summary["error_tuned/AI2D"], summary["samples/AI2D"]) == (1.5, 100)
    assert benchmarks_of(summary) == ["AI2D", "ChartQA", "POPE"]


def test_layers_parameters_and_times(summary: Metrics) -> None:
    layers = [summary[f"layers_{name}"] for name in ("before", "after", "tuned")]
    assert layers == [9, 7, 2]
    assert (summary["parameters_before"], summary["parameters_after"]) == (1000, 800)
    assert summary["ttft_speedup"] == 1.25 and summary["ttft_ideal"] == 1.28
    assert summary["ttft_speedup_low"] < summary["ttft_speedup"] < summary["ttft_speedup_high"]


def test_what_was_not_measured_is_missing() -> None:
    results = evaluations() | {"dense": without_scores()["dense"]}
    summary = summary_of(evaluations=results, ttft={})
    assert not {"score_dense", "retention_tuned", "ttft_speedup"} & set(summary)


def test_an_uncertain_speedup_is_missing_and_its_interval_stays() -> None:
    summary = summary_of(ttft=UNSURE)
    assert all(type(value) in (int, float) for value in summary.values())
    assert "ttft_speedup" not in summary and summary["ttft_speedup_high"] == 1.43


def test_categories_have_means_errors_and_retention(summary: Metrics) -> None:
    assert not [key for key in summary if key.startswith("category")]  # there is only one
    results = evaluations()
    for evaluation in results.values():
        change_scores(evaluation, category="Text/Chart")
        change_scores(evaluation, "ChartQA", category="GVQA")
    several = summary_of(plan(), evaluations=results)
    assert several["category_tuned/Text/Chart"] == 72
    assert several["category_retention_tuned/Text/Chart"] == pytest.approx(90)
    assert several["category_error_dense/GVQA"] == 1.5
    assert several["category_samples/GVQA"] == 100
    assert benchmarks_of(several) == ["AI2D", "ChartQA", "POPE"]


def test_reporting_needs_no_torch() -> None:
    modules = "interlace.cli, interlace.report.write, interlace.report.page.changes"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
