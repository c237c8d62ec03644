"""What an evaluation says about one model: plain values, fit for JSON."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Score(TypedDict):
    """The result of one model on one benchmark."""

    score: float  # 0 to 100
    standard_error: float | None  # of `score`; none for a single question
    n: int  # rows that count; questions, where a question counts if each of its rows is right
    category: str
    missing: NotRequired[int]  # rows without a judgement; they count nowhere


class Evaluation(TypedDict):
    """The results of one model: the same model, data and libraries give the same content."""

    model: str
    scores: dict[str, Score]  # by benchmark
    skipped: dict[str, str]  # benchmark: why it has no score
    notes: NotRequired[dict[str, str]]  # benchmark: what to know about its score
    versions: dict[str, str]
    device: str
    dtype: str
