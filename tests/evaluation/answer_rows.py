"""Answers with given scores, to questions of one benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from interlace.evaluation.scores.answers import Answer, answer_id


def answers(
    scores: Sequence[float | None],
    benchmark: str = "POPE",
    *,
    questions: Sequence[str] = (),
    orders: int = 1,
) -> list[Answer]:
    """One row per score; each question has `orders` rows, or `questions` names that of each row."""
    ids = questions or [str(row // orders) for row in range(len(scores))]
    return [
        Answer(answer_id(row, benchmark, "t"), benchmark, question, "q", "t", "a", score)
        for row, (question, score) in enumerate(zip(ids, scores, strict=True))
    ]
