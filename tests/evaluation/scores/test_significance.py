from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from evaluation.answer_rows import answers
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from interlace.errors import InputError
from interlace.evaluation.scores.answers import benchmark_score
from interlace.evaluation.scores.significance import OVERALL, Difference, differences, mcnemar


def difference(
    first: Sequence[float | None], second: Sequence[float | None], *args: str, orders: int = 1
) -> Difference:
    only, overall = differences(
        answers(first, *args, orders=orders), answers(second, *args, orders=orders)
    )
    assert overall.name == OVERALL
    return only


@given(st.integers(0, 3000), st.integers(0, 3000))
@example(4000, 4000)  # beyond floats
def test_mcnemar_is_a_two_sided_binomial_test(worse: int, better: int) -> None:
    expected = binomtest(worse, worse + better).pvalue if worse + better else 1.0
    assert mcnemar(worse, better) == pytest.approx(expected)


def test_worse_and_better_count_questions_and_equal_answers_do_not_matter() -> None:
    result = difference([1, 1, 1, 0, 1, 0] + [1] * 20, [0, 0, 1, 1, 0, 0] + [1] * 20)
    assert (result.worse, result.better, result.questions) == (3, 1, 26)
    assert result.p == pytest.approx(binomtest(1, 4).pvalue)
    assert result.second - result.first == pytest.approx(-100 * 2 / 26)


@pytest.mark.parametrize("benchmark", ["POPE", "MMBench"])
def test_scores_are_those_of_the_evaluation(benchmark: str) -> None:
    first, second = [1, 0, 1, 1, 0, 1], [1, 1, 1, 0, 0, 0]
    result = difference(first, second, benchmark, orders=2)
    for value, scores in ((result.first, first), (result.second, second)):
        score = benchmark_score(answers(scores, benchmark, orders=2), "c")
        assert score and value == pytest.approx(score.score)


def test_the_interval_is_that_of_a_plain_bootstrap_over_questions() -> None:
    rng = np.random.default_rng(1)
    first = rng.integers(0, 2, 80)
    second = np.where(rng.random(80) < 0.2, 1 - first, first)  # paired: similar models
    draws = [100 * float((second - first)[rng.integers(0, 80, 80)].mean()) for _ in range(10_000)]
    interval = difference(first.tolist(), second.tolist()).interval
    assert interval == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=1.3)


def test_benchmarks_weigh_the_same_overall_and_ratios_are_averaged() -> None:
    first = answers([1] * 10, "A") + answers([1, 1, 0, 0], "B")
    second = answers([1] * 5 + [0] * 5, "A") + answers([1, 0, 0, 0], "B")
    overall = differences(first, second)[-1]
    assert (overall.first, overall.second) == (75, 37.5)
    assert overall.retained == pytest.approx(50)
    assert (overall.worse, overall.questions) == (6, 14)
    low, high = overall.retained_interval or (0, 0)
    assert low < 50 < high


def test_rows_without_a_judgement_for_either_model_are_skipped() -> None:
    result = difference([1, None, 1, 0], [None, 1, 0, 0])
    assert (result.questions, result.worse) == (2, 1)


def test_a_benchmark_that_scored_zero_retains_nothing() -> None:
    both = differences(answers([0, 0]), answers([1, 0]))
    assert [result.retained for result in both] == [None, None]


def test_runs_on_other_data_are_not_compared() -> None:
    other = [dataclasses.replace(row, sample_id="000000-else") for row in answers([1])]
    with pytest.raises(InputError, match="no scored row in common"):
        differences(answers([1]), other)
    with pytest.raises(InputError, match="share 1 rows of 2 and 2"):
        differences(answers([1, 1]), answers([1]) + other)


def test_an_f1_of_two_models_weighs_each_row_by_its_model_s_answer() -> None:
    """Truths yes, yes, no, no; the second model misses a yes, and says one too many."""
    columns = {"a": ([1, 1, 1, 0], [2, 2, 0, 1]), "b": ([0, 1, 0, 0], [1, 2, 1, 1])}
    first, second = (
        [
            dataclasses.replace(row, benchmark="POPE-F1", weight=weight)
            for row, weight in zip(answers(scores), weights, strict=True)
        ]
        for scores, weights in columns.values()
    )
    (pope, _) = differences(first, second)
    assert (pope.first, pope.second) == (pytest.approx(80), pytest.approx(40))
    assert (pope.worse, pope.better) == (2, 0)
    assert pope.interval[0] < pope.second - pope.first < pope.interval[1]
