from __future__ import annotations

import math
import statistics
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlace.errors import InputError
from interlace.evaluation.scores.answers import (
    Answer,
    answer_id,
    benchmark_score,
    question_scores,
    read_answers,
    row_number,
    write_answers,
)


def made(
    scores: list[float | None], questions: list[str] | None = None, benchmark: str = "POPE"
) -> list[Answer]:
    names = questions or [str(i) for i in range(len(scores))]
    return [
        Answer(answer_id(i, "q", "t"), benchmark, name, "q", "t", "a", score)
        for i, (name, score) in enumerate(zip(names, scores, strict=True))
    ]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_the_standard_error_of_separate_questions_is_the_usual_one(scores: list[float]) -> None:
    found = benchmark_score(made(list(scores)), "c")
    assert found
    assert found.score == pytest.approx(100 * statistics.fmean(scores))
    usual = 100 * statistics.stdev(scores) / math.sqrt(len(scores))
    assert found.standard_error == pytest.approx(usual, abs=1e-6)
    assert found.n == len(scores)


def test_a_question_in_four_orders_is_no_four_questions() -> None:
    once = benchmark_score(made([1, 0, 1]), "c")
    four = benchmark_score(made([1, 0, 1] * 4, ["a", "b", "c"] * 4), "c")
    assert once and four
    assert four.score == pytest.approx(once.score)
    assert four.standard_error == pytest.approx(once.standard_error)
    assert four.n == 12


def test_rows_weigh_the_same_where_questions_have_different_numbers_of_rows() -> None:
    found = benchmark_score(made([1, 1, 1, 0], ["a", "a", "a", "b"]), "c")
    assert found and found.score == 75


def test_a_question_of_mmbench_is_all_right_or_wrong() -> None:
    answers = made([1, 0, 1, 1], ["a", "a", "b", "b"], "MMBench")
    assert question_scores(answers, "MMBench") == {"a": 0, "b": 1}
    assert question_scores(answers, "POPE") == {"a": 0.5, "b": 1}
    found = benchmark_score(answers, "c")
    assert found and (found.score, found.n) == (50, 2)


def test_a_row_without_a_judgement_counts_nowhere() -> None:
    found = benchmark_score(made([1, None, 0, None]), "c")
    assert found and (found.score, found.n, found.missing) == (50, 2, 2)
    assert benchmark_score(made([None]), "c") is None


def test_one_question_has_no_standard_error() -> None:
    found = benchmark_score(made([1]), "c")
    assert found and found.standard_error is None


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    answers = made([1.0, None, 0.25])
    write_answers(answers, tmp_path / "sub" / "a.parquet")
    assert read_answers(tmp_path / "sub" / "a.parquet") == answers
    assert [row_number(answer.sample_id) for answer in answers] == [0, 1, 2]


def test_the_name_of_a_row_changes_with_what_was_asked() -> None:
    names = {answer_id(3, *asked) for asked in (("q", "t"), ("q", "u"), ("r", "t"), ("qt", ""))}
    assert len(names) == 4


def test_a_file_that_holds_no_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_answers(tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="not answers; its columns are x"):
        read_answers(tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_text("no")
    with pytest.raises(InputError, match="not a Parquet file"):
        read_answers(tmp_path / "c.parquet")
