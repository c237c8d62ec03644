"""Answers with given scores, to questions of one benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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


def measured(
    losses: Sequence[float | None],
    tokens: Sequence[int],
    benchmark: str = "POPE",
    *,
    questions: Sequence[str] = (),
    choices: Sequence[Sequence[int]] = (),
) -> list[Answer]:
    """One row per loss, nats; all answer tokens are 1, and so are `choices` unless given."""
    rows = answers([1] * len(losses), benchmark, questions=questions)
    columns = zip(rows, losses, tokens, choices or [[1] * int(n) for n in tokens], strict=True)
    return [
        row if loss is None else replace(row, loss=float(loss), n_tokens=int(n), choices=tuple(ids))
        for row, loss, n, ids in columns
    ]
