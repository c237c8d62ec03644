from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report.report_cases import shown_lines

from interlace.errors import InputError
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS
from interlace.evaluation.scores.result import Score
from interlace.params.whole import Params
from interlace.report.facts.published import (
    Beside,
    beside_published,
    published_table,
    read_published,
    retention_beside,
    speedup_beside,
)
from interlace.report.facts.speed import PhaseTiming, Speed

ROWS = read_published(Path(__file__).parents[2] / "data/published.csv")


def params(model: str = "Qwen/Qwen3-VL-8B-Instruct", longest: int = 16384, **more: Any) -> Params:
    given = {"model": {"id": model}, "data": {"id": "a/b"}}
    return Params.model_validate(given | {"evaluate": {"max_new_tokens": longest}} | more)


@pytest.mark.parametrize(
    ("run", "ratio", "models", "published"),
    [
        (
            params(),
            0.25,
            ["dense", "tuned", "dense_ft", "pruned"],
            {"dense": ("5", 85.7), "tuned": ("5", 72.3), "dense-ft": ("6", 82.9)},
        ),
        (params("/models/Qwen3-VL-8B-Instruct/"), 0.25, ["dense"], {"dense": ("5", 85.7)}),
        (params(longest=50), 0.25, ["dense"], {"dense": ("6", 69.9)}),
        (params(longest=300), 0.25, ["dense"], {}),
        (params("data/demo/model"), 0.25, ["tuned"], {}),
        (params("Qwen/Qwen3-VL-30B-A3B-Instruct"), 0.25, ["tuned"], {}),
        (params(method="sleb"), 0.25, ["tuned"], {}),
        (params(), 0.2, ["tuned"], {}),
    ],
)
def test_scores_of_the_same_model_method_ratio_and_length_are_set_side_by_side(
    run: Params, ratio: float, models: list[str], published: dict[str, tuple[str, float]]
) -> None:
    score = Score(score=80, standard_error=1.0, n=100, category="c")
    beside = beside_published({model: {"AI2D": score} for model in models}, run, ratio, ROWS)
    assert {row.model: (row.source, row.published) for row in beside} == {
        model: (f"2511.19676, table {table}", value) for model, (table, value) in published.items()
    }


@pytest.mark.parametrize(("ours", "agrees"), [(82.0, True), (79.1, False), (90.0, False)])
def test_agreement_allows_for_chance_on_both_sides(ours: float, agrees: bool) -> None:
    assert Beside("dense", "AI2D", ours, 1.0, 82.0, "s").agrees is agrees
    assert Beside("dense", "AI2D", ours, None, 82.0, "s").agrees is None


SUMMARY: dict[str, Any] = {
    "retention_tuned": 85.0,
    "retention_tuned_low": 83.0,
    "retention_tuned_high": 87.0,
    "retention_tuned_of_dense_ft": 80.0,
    "retention_tuned_of_dense_ft_low": 79.0,
    "retention_tuned_of_dense_ft_high": 81.0,
} | {f"retention_tuned{of}/{name}": 90.0 for of in ("", "_of_dense_ft") for name in BENCHMARKS}


def test_retention_is_beside_that_of_the_same_reference() -> None:
    given = params(data={"id": "a/b", "fraction": 0.03})
    beside = {
        (one.what, one.source): (one.ours, one.published, one.agrees)
        for one in retention_beside(SUMMARY, given, 0.25, ROWS)
    }
    assert beside == {
        ("of dense", "model-card"): (85.0, 86.1, True),
        ("of dense", "2511.19676, table 8"): (85.0, 86.7, True),
        ("of dense-ft", "2511.19676, table 7"): (80.0, 88.9, False),
    }


def test_retention_over_other_benchmarks_is_not_compared() -> None:
    fewer = {name: value for name, value in SUMMARY.items() if not name.endswith("/POPE")}
    assert retention_beside(fewer, params(), 0.25, ROWS) == []
    assert retention_beside(SUMMARY, params(method="sleb"), 0.15, ROWS) == []
    by_benchmark = retention_beside(fewer, params(), 0.15, ROWS)
    assert {one.benchmark for one in by_benchmark} == BENCHMARKS.keys() - {"POPE"}


def test_the_first_token_of_a_benchmark_is_beside_table_4() -> None:
    timing = PhaseTiming("AI2D", 12.0, 10.0, speedup=1.2, low=1.19, high=1.21, ideal=1.2)
    unsure = replace(timing, speedup=None)
    timings = {"AI2D": timing, "POPE": unsure, "made_up": timing}
    speed = Speed({}, pairs=1, device="a GPU", benchmarks=timings)
    shaped = params(ttft={"shapes": ["AI2D", "POPE"]})
    assert speedup_beside(speed, params(), 0.25, ROWS) == []
    (found,) = speedup_beside(speed, shaped, 0.25, ROWS)
    assert (found.benchmark, found.published, found.agrees) == ("AI2D", 1.21, True)
    assert speedup_beside(speed, shaped, 0.3, ROWS) == []


def test_the_table_says_where_they_agree_in_80_columns() -> None:
    rows = [
        Beside("dense", "AI2D", 82.0, 1.0, 82.0, "2511.19676, table 5"),
        Beside("tuned", "RealWorldQA", 70.0, 1.0, 82.0, "2511.19676, table 5"),
        Beside("tuned", "all", 70.0, 1.0, 82.0, "2511.19676, table 7", "of dense-ft"),
        Beside("tuned", "AI2D", 1.2, 0.01, 1.21, "2511.19676, table 4", "first token"),
    ]
    for line, facts in zip(
        shown_lines(published_table(rows))[2:],
        [("yes", "82.0 ± 1.0"), ("-12.0",), ("of dense-ft", "70.0% ± 1.0"), ("1.20x ± 0.01",)],
        strict=True,
    ):
        assert all(fact in line for fact in facts)


def test_every_published_benchmark_of_the_twelve_has_our_name() -> None:
    names = {row["benchmark"] for row in ROWS if row["paper"] == "2511.19676"}
    assert set(BENCHMARKS) <= names


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="its columns should be paper, table"):
        read_published(tmp_path / "p.csv")
    with pytest.raises(InputError, match="no such file"):
        read_published(tmp_path / "none.csv")
