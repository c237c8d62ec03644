from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from report.report_cases import TTFT, UNSURE, change_scores, evaluations, plan, small_plan
from safetensors.numpy import save_file

from interlace.errors import InputError
from interlace.report.facts.summary import benchmarks_of, count_parameters, left_out, summarise


@pytest.fixture
def summary() -> dict[str, float | int]:
    return summarise(
        evaluations(), TTFT, small_plan(), parameters_before=1000, parameters_after=800
    )


def test_it_is_flat_numbers(summary: dict[str, float | int]) -> None:
    assert all(type(value) in (int, float) for value in summary.values())
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_means_are_over_what_all_three_models_have(summary: dict[str, float | int]) -> None:
    assert summary["benchmarks"] == 2  # POPE has no tuned score
    assert summary["score_dense"] == pytest.approx((80 + 50) / 2)
    assert summary["score_pruned"] == pytest.approx((40 + 20) / 2)
    assert summary["score_tuned"] == pytest.approx((72 + 50) / 2)


def test_retention_is_a_mean_of_ratios_against_dense(summary: dict[str, float | int]) -> None:
    assert summary["retention_pruned"] == pytest.approx(100 * (40 / 80 + 20 / 50) / 2)
    assert summary["retention_tuned"] == pytest.approx(100 * (72 / 80 + 50 / 50) / 2)
    assert summary["retention_tuned/AI2D"] == pytest.approx(90)


def test_each_score_is_there(summary: dict[str, float | int]) -> None:
    assert summary["dense/POPE"] == 90 and summary["pruned/POPE"] == 81
    assert "tuned/POPE" not in summary and "retention_tuned/POPE" not in summary
    assert benchmarks_of(summary) == ["AI2D", "ChartQA", "POPE"]


def test_layers_parameters_and_times(summary: dict[str, float | int]) -> None:
    assert (summary["layers_before"], summary["layers_after"]) == (9, 7)
    assert (summary["parameters_before"], summary["parameters_after"]) == (1000, 800)
    assert summary["ttft_speedup"] == 1.25 and summary["ttft_ideal"] == 1.28
    assert summary["ttft_speedup_low"] < summary["ttft_speedup"] < summary["ttft_speedup_high"]


def test_what_was_not_measured_is_missing() -> None:
    results = evaluations()
    results["dense"].scores.clear()
    summary = summarise(results, {}, plan(), parameters_before=2, parameters_after=1)
    assert not {"score_dense", "retention_tuned", "ttft_speedup"} & set(summary)


def test_a_speedup_that_is_too_unsure_is_missing_and_its_interval_stays() -> None:
    summary = summarise(evaluations(), UNSURE, plan(), parameters_before=2, parameters_after=1)
    assert "ttft_speedup" not in summary and summary["ttft_speedup_high"] == 1.43
    assert all(type(value) in (int, float) for value in summary.values())


def test_left_out_benchmarks_have_a_reason() -> None:
    assert left_out(evaluations()) == {
        "MIA-Bench": "no judge is configured",
        "POPE": "tuned: no result for the model",
    }


def test_a_dense_score_of_zero_is_left_out_of_retention() -> None:
    results = evaluations()
    change_scores(results["dense"], "AI2D", score=0.0)
    summary = summarise(results, {}, plan(), parameters_before=2, parameters_after=1)
    assert summary["retention_tuned"] == pytest.approx(100)
    assert "AI2D" in left_out(results)


def test_parameters_are_counted_over_all_shards(tmp_path: Path) -> None:
    metadata = {"format": "pt"}
    save_file({"a": np.zeros((3, 5), np.float16)}, tmp_path / "one.safetensors", metadata)
    save_file({"b": np.zeros(7), "c": np.array(1.0)}, tmp_path / "two.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("not read")
    assert count_parameters(tmp_path) == 15 + 7 + 1


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]", b"\x09" + b"\0" * 7]
)
def test_a_broken_checkpoint_is_named(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \*\.safetensors"):
        count_parameters(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: not a whole safetensors file"):
        count_parameters(tmp_path)


def test_reporting_needs_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys;"
        "import interlace.cli, interlace.report.write, interlace.report.page.changes;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_means_have_standard_errors_and_counts(summary: dict[str, float | int]) -> None:
    assert summary["score_dense_error"] == pytest.approx(np.hypot(1.5, 1.5) / 2)
    assert summary["error_tuned/AI2D"] == 1.5
    assert summary["samples"] == 200
    assert summary["samples/AI2D"] == 100


def test_categories_have_means_errors_and_retention() -> None:
    results = evaluations()
    for evaluation in results.values():
        for name in evaluation.scores:
            category = "GVQA" if name == "ChartQA" else "Text/Chart"
            change_scores(evaluation, name, category=category)
    found = summarise(results, TTFT, plan(), parameters_before=2, parameters_after=1)
    assert found["category_tuned/Text/Chart"] == 72
    assert found["category_retention_tuned/Text/Chart"] == pytest.approx(90)
    assert found["category_error_dense/GVQA"] == 1.5
    assert found["category_samples/GVQA"] == 100
    assert benchmarks_of(found) == ["AI2D", "ChartQA", "POPE"]


def test_a_single_category_is_the_mean_and_is_not_repeated(
    summary: dict[str, float | int],
) -> None:
    assert not [key for key in summary if key.startswith("category")]
