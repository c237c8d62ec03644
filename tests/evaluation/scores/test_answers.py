from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation.answer_rows import answers, measured
from hypothesis import given
from hypothesis import strategies as st

from interlace.errors import InputError
from interlace.evaluation.scores.answers import (
    answer_id,
    benchmark_score,
    question_scores,
    read_answers,
    row_number,
    write_answers,
)
from interlace.evaluation.scores.result import Score
from interlace.scores.rate import rate


def score(*args: object, **kwargs: object) -> Score:
    result = benchmark_score(answers(*args, **kwargs), "c")  # type: ignore[arg-type]
    assert result
    return result


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_the_standard_error_of_separate_questions_is_the_usual_one(scores: list[float]) -> None:
    result = score(scores)
    assert result.score == pytest.approx(100 * statistics.fmean(scores))
    usual = 100 * statistics.stdev(scores) / math.sqrt(len(scores))
    assert result.standard_error == pytest.approx(usual, abs=1e-6)
    assert result.n == len(scores)


def test_four_orders_of_a_question_do_not_shrink_the_standard_error() -> None:
    once, four = score([1, 0, 1]), score([1, 0, 1] * 4, questions=["a", "b", "c"] * 4)
    assert four.score == pytest.approx(once.score)
    assert four.standard_error == pytest.approx(once.standard_error)
    assert four.n == 12


def test_rows_weigh_the_same_and_one_question_has_no_standard_error() -> None:
    assert score([1, 1, 1, 0], questions=["a", "a", "a", "b"]).score == 75
    assert score([1]).standard_error is None


def test_a_question_of_mmbench_counts_if_all_its_rows_are_right() -> None:
    rows = answers([1, 0, 1, 1], "MMBench", orders=2)
    assert question_scores(rows, "MMBench") == {"0": 0, "1": 1}
    assert question_scores(rows, "POPE") == {"0": 0.5, "1": 1}
    result = score([1, 0, 1, 1], "MMBench", orders=2)
    assert (result.score, result.n) == (50, 2)


def test_a_row_without_a_judgement_counts_nowhere() -> None:
    result = score([1, None, 0, None])
    assert (result.score, result.n, result.missing) == (50, 2, 2)
    assert benchmark_score(answers([None]), "c") is None


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = answers([1.0, None, 0.25]) + measured([2.5, None], [3, 1])
    rows[1] = replace(rows[1], weight=7)
    write_answers(rows, tmp_path / "sub/a.parquet")
    assert read_answers(tmp_path / "sub/a.parquet") == rows
    assert [row_number(row.sample_id) for row in rows] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"weight": -1}, "weight = -1 is less than 0"),
        ({"loss": None}, "loss, n_tokens and choices are not all there"),
        ({"loss": math.inf}, "loss = inf is not finite"),
        ({"n_tokens": 4}, "choices has 3 tokens, and n_tokens = 4"),
        ({"n_tokens": 0, "choices": ()}, "choices has 0 tokens"),
    ],
    ids=str,
)
def test_a_damaged_loss_is_named(changes: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    good, bad = measured([2.5, 1.0], [3, 3])
    write_answers([good, replace(bad, **changes)], tmp_path / "a.parquet")
    with pytest.raises(InputError, match=rf"a\.parquet: row 1: {complaint}"):
        read_answers(tmp_path / "a.parquet")


def test_text_rows_weigh_by_their_tokens() -> None:
    """3 of 4 and 1 of 12 tokens right: 4 of 16, and not the mean of 75% and 8%."""
    rows = [
        replace(row, weight=w) for row, w in zip(answers([3 / 4, 1 / 12]), (4, 12), strict=True)
    ]
    result = benchmark_score(rows, "c")
    assert result and (result.score, result.n) == (pytest.approx(25), 2)
    assert result.standard_error == pytest.approx(rate([300, 100], [4, 12]).standard_error)


def test_an_answer_id_depends_on_prompt_and_target() -> None:
    content = (("q", "t"), ("q", "u"), ("r", "t"), ("qt", ""))
    assert len({answer_id(3, prompt, target) for prompt, target in content}) == 4


def test_a_file_that_holds_no_answers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(InputError, match="no such file"):
        read_answers(path)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(InputError, match="columns are x"):
        read_answers(path)
    write_answers(answers([1.0]), path)
    earlier = pq.read_table(path).drop_columns(["weight", "loss", "n_tokens", "choices"])
    pq.write_table(earlier, path)
    with pytest.raises(InputError, match="holds no losses, an earlier version wrote it: evaluate"):
        read_answers(path)
    path.write_text("no")
    with pytest.raises(InputError, match="not a Parquet file"):
        read_answers(path)
