"""What an evaluation says about one model: plain values, fit for JSON."""

from __future__ import annotations

from typing import TypedDict


class Score(TypedDict):
    """The result of one model on one benchmark."""

    score: float  # 0 to 100
    standard_error: float | None  # of `score`; none where the benchmark has no per-row score
    n: int  # rows
    category: str


class Evaluation(TypedDict):
    """The results of one model: the same model, data and libraries give the same content."""

    model: str
    scores: dict[str, Score]  # by benchmark
    skipped: dict[str, str]  # benchmark: why it has no score
    versions: dict[str, str]
    device: str
    dtype: str
