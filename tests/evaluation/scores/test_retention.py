from __future__ import annotations

import pytest

from interlace.evaluation.scores.result import Score
from interlace.evaluation.scores.retention import (
    category_scores,
    common_benchmarks,
    overall_score,
    relative_performance,
)


def scores(category: str = "c", **values: float) -> dict[str, Score]:
    return {
        name: Score(score=value, standard_error=None, n=10, category=category)
        for name, value in values.items()
    }


def test_relative_performance_is_a_mean_of_ratios() -> None:
    relative = relative_performance(scores(a=40, b=9), scores(a=80, b=10))
    assert relative.ratios == {"a": 50, "b": 90}
    assert relative.percent == pytest.approx(70)  # the ratio of means would be 49 / 90
    assert relative.skipped == {}


def test_skipped_benchmarks_count_for_neither_model_and_have_a_reason() -> None:
    relative = relative_performance(scores(a=40, c=5, d=7), scores(a=80, b=10, d=0))
    assert relative.percent == pytest.approx(50)
    assert relative.skipped == {
        "b": "no result for the model",
        "c": "no result for the reference",
        "d": "the reference scores 0",
    }


def test_overall_and_category_scores_are_means_over_benchmarks() -> None:
    both = scores("p", a=10, b=20) | scores("q", c=90)
    assert overall_score(both) == 40
    assert overall_score(both, common_benchmarks(both, scores(c=1, a=1))) == 50
    assert category_scores(both) == {"p": 15, "q": 90}
    assert category_scores(both, ["b", "c"]) == {"p": 20, "q": 90}


def test_common_benchmarks_keep_the_first_order_and_none_give_no_number() -> None:
    assert common_benchmarks(scores(c=1, b=1, a=1), scores(a=1, c=1)) == ["c", "a"]
    assert common_benchmarks() == []
    assert relative_performance(scores(a=1), scores(b=1)).percent is None
    assert overall_score({}) is None
