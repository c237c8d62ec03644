"""Losses per token and paired differences, by hand and against a plain bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from evaluation.answer_rows import measured
from hypothesis import given
from hypothesis import strategies as st

from interlace.errors import InputError
from interlace.evaluation.scores.losses import agreement, loss_of, loss_rise
from interlace.scores.rate import rate


def test_a_rise_and_its_error_are_those_worked_out_by_hand() -> None:
    """Rises 1, 2 and 6 nats of 1, 2 and 3 tokens: 9/6, residuals -0.5, -1 and 1.5."""
    first, second = measured([2, 3, 4], [1, 2, 3]), measured([3, 5, 10], [1, 2, 3])
    rise = loss_rise(first, second)
    assert rise is not None and (rise.value, rise.tokens) == (1.5, 6)
    assert rise.standard_error == pytest.approx(math.sqrt(3 / 2 * 3.5) / 6)
    assert rise.z == pytest.approx(1.5 / (math.sqrt(5.25) / 6))
    back = loss_rise(second, first)
    assert back is not None
    assert (back.value, back.standard_error) == (-1.5, rise.standard_error)


def test_the_loss_of_a_model_is_a_ratio_of_sums_over_questions() -> None:
    loss = loss_of(measured([2, 3, 4], [1, 2, 3]))
    assert loss is not None and (loss.loss, loss.tokens) == (1.5, 6)
    residuals = np.array([2 - 1.5, 3 - 3, 4 - 4.5])
    assert loss.standard_error == pytest.approx(math.sqrt(3 / 2 * (residuals**2).sum()) / 6)
    assert loss_of(measured([2.0], [1])).standard_error is None  # type: ignore[union-attr]
    assert loss_of(measured([None, None], [1, 1])) is None


@pytest.mark.parametrize("seed", range(3))
def test_errors_are_those_of_a_plain_bootstrap_over_questions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, questions = rng.integers(1, 40, 400), 400
    hard = rng.gamma(2, 1, questions)  # questions are hard for both models
    first = n * hard + rng.normal(0, 1, questions)
    second = first + n * rng.normal(0.1, 0.2, questions) + rng.normal(0, 0.5, questions)
    draws = []
    for _ in range(2000):
        sample = rng.integers(0, questions, questions)
        draws.append((second - first)[sample].sum() / n[sample].sum())
    rise = loss_rise(measured(first, n), measured(second, n))
    assert rise is not None and rise.standard_error is not None
    assert rise.standard_error == pytest.approx(np.std(draws), rel=0.1)
    unpaired = [loss_of(measured(losses, n)) for losses in (first, second)]
    errors = [loss.standard_error or 0.0 for loss in unpaired if loss]
    assert rise.standard_error < 0.3 * math.hypot(*errors)


def test_rows_of_one_question_are_one_cluster() -> None:
    rows = measured([2, 3, 4, 5], [1, 2, 3, 1], questions=["a", "a", "b", "b"])
    joined = measured([5, 9], [3, 4])
    assert loss_of(rows) == loss_of(joined)
    apart = loss_of(measured([2, 3, 4, 5], [1, 2, 3, 1]))
    assert apart is not None and apart.standard_error != loss_of(joined).standard_error  # type: ignore[union-attr]


def test_questions_of_two_sources_are_apart() -> None:
    both = measured([2, 3], [1, 2], "A") + measured([4, 7], [3, 1], "B")
    assert loss_of(both) == loss_of(measured([2, 3, 4, 7], [1, 2, 3, 1]))


def test_agreement_is_the_share_of_equal_first_choices() -> None:
    first = measured([0, 0], [2, 4], choices=[[1, 2], [3, 4, 5, 6]])
    second = measured([0, 0], [2, 4], choices=[[1, 9], [3, 4, 5, 0]])
    share = agreement(first, second)
    assert share is not None and (share.value, share.tokens) == (pytest.approx(100 * 4 / 6), 6)
    expected = rate([100.0, 300.0], [2, 4])
    assert share.standard_error == pytest.approx(expected.standard_error)
    same = agreement(first, first)
    assert same is not None and (same.value, same.standard_error) == (100.0, 0.0)


def test_only_rows_that_both_models_have_a_loss_on_are_compared() -> None:
    first, second = measured([2, None, 4, 1], [1, 1, 2, 1]), measured([3, 9, None, 2], [1, 1, 2, 1])
    rise = loss_rise(first, second)
    assert rise is not None and (rise.value, rise.tokens) == (1.0, 2)
    assert loss_rise(first, measured([None] * 4, [1] * 4)) is None
    assert agreement([], second) is None


def test_answers_of_two_tokenizers_are_refused() -> None:
    with pytest.raises(InputError, match=r"POPE, 000001-\w+: its answer has 2 tokens .* and 3"):
        loss_rise(measured([1, 1], [1, 2]), measured([1, 1], [1, 3]))


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.integers(1, 99)), min_size=2, max_size=9),
    st.floats(-5, 5),
)
def test_a_shift_per_token_moves_the_rate_and_keeps_its_error(
    questions: Sequence[tuple[float, int]], shift: float
) -> None:
    sums, tokens = [x for x, _ in questions], [n for _, n in questions]
    plain, moved = rate(sums, tokens), rate([x + shift * n for x, n in questions], tokens)
    assert moved.value == pytest.approx(plain.value + shift, abs=1e-9)
    assert moved.standard_error == pytest.approx(plain.standard_error, abs=1e-9)
