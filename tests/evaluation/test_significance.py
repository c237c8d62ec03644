from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from interlace.errors import InputError
from interlace.evaluation.scores.answers import Answer, answer_id, benchmark_score
from interlace.evaluation.scores.significance import OVERALL, Difference, differences, mcnemar


def answers(
    scores: Sequence[float | None], benchmark: str = "POPE", orders: int = 1
) -> list[Answer]:
    return [
        Answer(answer_id(i, benchmark, "t"), benchmark, str(i // orders), "q", "t", "a", score)
        for i, score in enumerate(scores)
    ]


def only(first: list[Answer], second: list[Answer]) -> Difference:
    found, overall = differences(first, second)
    assert overall.name == OVERALL
    return found


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_a_two_sided_binomial_test(worse: int, better: int) -> None:
    expected = binomtest(worse, worse + better).pvalue if worse + better else 1.0
    assert mcnemar(worse, better) == pytest.approx(expected)


def test_mcnemar_survives_large_counts() -> None:
    assert mcnemar(4000, 4000) == 1
    assert mcnemar(0, 3000) == 0


def test_worse_and_better_count_questions_and_the_rest_does_not_matter() -> None:
    first = [1, 1, 1, 0, 1, 0] + [1] * 20
    second = [0, 0, 1, 1, 0, 0] + [1] * 20
    found = only(answers(first), answers(second))
    assert (found.worse, found.better, found.questions) == (3, 1, 26)
    assert found.p == pytest.approx(binomtest(1, 4).pvalue)
    assert found.second - found.first == pytest.approx(-100 * 2 / 26)


def test_scores_are_those_of_the_evaluation() -> None:
    for benchmark in ("POPE", "MMBench"):
        first = answers([1, 0, 1, 1, 0, 1], benchmark, orders=2)
        second = answers([1, 1, 1, 0, 0, 0], benchmark, orders=2)
        found = only(first, second)
        for value, given_answers in ((found.first, first), (found.second, second)):
            score = benchmark_score(given_answers, "c")
            assert score and value == pytest.approx(score.score)


def test_the_interval_is_the_bootstraps_of_each_question_drawn_on_its_own() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 2, 80), rng.integers(0, 2, 80)
    found = only(answers(first.tolist()), answers(second.tolist()))
    draws = [100 * float((second - first)[rng.integers(0, 80, 80)].mean()) for _ in range(10_000)]
    assert found.interval == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=1.3)


def test_pairing_makes_the_interval_of_like_models_narrow() -> None:
    first = [1, 0] * 50
    like = [*first[:-2], 0, 0]
    unlike = [1, 1, 0, 0] * 25
    narrow, wide = (only(answers(first), answers(other)).interval for other in (like, unlike))
    assert narrow[1] - narrow[0] < 0.25 * (wide[1] - wide[0])


def test_equal_answers_differ_by_nothing() -> None:
    found = only(answers([1, 0, 1]), answers([1, 0, 1]))
    assert found.interval == (0, 0)
    assert (found.p, found.retained, found.retained_interval) == (1, 100, (100, 100))


def test_over_all_benchmarks_each_weighs_the_same_and_ratios_are_averaged() -> None:
    first = answers([1] * 10, "A") + answers([1, 1, 0, 0], "B")
    second = answers([1] * 5 + [0] * 5, "A") + answers([1, 0, 0, 0], "B")
    overall = differences(first, second)[-1]
    assert (overall.first, overall.second) == (75, 37.5)
    assert overall.retained == pytest.approx(50)
    assert (overall.worse, overall.questions) == (6, 14)
    low, high = overall.retained_interval or (0, 0)
    assert low < 50 < high


def test_rows_without_a_judgement_on_either_side_are_left_out() -> None:
    found = only(answers([1, None, 1, 0]), answers([None, 1, 0, 0]))
    assert (found.questions, found.worse) == (2, 1)


def test_a_benchmark_that_scored_zero_retains_nothing() -> None:
    overall = differences(answers([0, 0]), answers([1, 0]))[-1]
    assert overall.retained is None


def test_runs_on_other_data_are_not_compared() -> None:
    other = [Answer(answer_id(0, "else", "t"), "POPE", "0", "else", "t", "a", 1)]
    with pytest.raises(InputError, match="no scored row in common"):
        differences(answers([1]), other)
    with pytest.raises(InputError, match="share 1 rows of 2 and 2: their data differ"):
        differences(answers([1, 1]), answers([1]) + other)


def test_the_same_answers_give_the_same_numbers() -> None:
    first, second = answers([1, 0, 1, 0] * 9), answers([1, 1, 0, 0] * 9)
    assert differences(first, second) == differences(first, second)
