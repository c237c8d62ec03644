"""Tests whether two models differ on the same questions beyond chance. No torch here.

The unit is a question. The exact McNemar test (for graded scores, the sign test) uses the questions
that one model answers better than the other; the rest tells nothing about the difference. A paired
bootstrap over questions gives the difference an interval in points. It also holds for graded
scores, for questions asked in several ways, and for means over benchmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interlace.errors import InputError
from interlace.evaluation.scores.answers import Answer, question_scores, question_weights

DRAWS = 10_000
DRAW_CELLS = 2**22  # numbers of draws in memory at once; graded answers differ in every row
LEVEL = 0.95  # of every interval
OVERALL = "all"

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """The difference between two models' scores on the same questions.

    Attributes:
        name: of the benchmark; `OVERALL` for the mean over benchmarks.
        questions: number of questions that both answered.
        first: score of the first model, 0 to 100.
        second: score of the second model, 0 to 100.
        interval: of second - first, points, at `LEVEL`.
        retained: 100 * second / first, None if `first` is 0; for `OVERALL` the mean of these.
        retained_interval: of `retained`, at `LEVEL`.
        worse: number of questions on which the second model scores less.
        better: number of questions on which the second model scores more.
        p: probability of a split between worse and better at least this uneven, for equally good
            models.
    """

    name: str
    questions: int
    first: float
    second: float
    interval: Interval
    retained: float | None
    retained_interval: Interval | None
    worse: int
    better: int
    p: float


def mcnemar(worse: int, better: int) -> float:
    """Compute the p of an exact two-sided McNemar test: worse ~ Binomial(worse + better, 1/2)."""
    n, term, tail = worse + better, 1, 0
    for i in range(min(worse, better) + 1):
        tail += term
        term = term * (n - i) // (i + 1)  # n over i + 1
    return float(min(Fraction(1), Fraction(2 * tail, 2**n)))  # integers: no overflow


def differences(
    first: Sequence[Answer], second: Sequence[Answer], *, seed: int = 0
) -> list[Difference]:
    """Compare two models on each benchmark that both answered, then on all of them.

    Args:
        first: answers of the first model.
        second: answers of the second model.
        seed: of the bootstrap.

    Returns:
        One difference per benchmark, in the first model's order, then the mean over benchmarks.

    Raises:
        InputError: the models answered different rows.
    """
    rng = np.random.default_rng(seed)
    by_benchmark, samples = [], []
    for name, (first_answers, second_answers) in _pairs(first, second).items():
        values = _questions(name, first_answers, second_answers)
        means, draws = _means(values), _bootstrap(values, rng)
        by_benchmark.append(_difference(name, values, means, draws))
        samples.append((means, draws))
    return [*by_benchmark, _overall(by_benchmark, samples)]


def _pairs(
    first: Sequence[Answer], second: Sequence[Answer]
) -> dict[str, tuple[list[Answer], list[Answer]]]:
    """By benchmark, the answers of both models to the rows for which both have a score."""
    second_by_row = {(answer.benchmark, answer.sample_id): answer for answer in second}
    pairs: dict[str, tuple[list[Answer], list[Answer]]] = {}
    shared = 0
    for answer in first:
        counterpart = second_by_row.get((answer.benchmark, answer.sample_id))
        shared += counterpart is not None
        if counterpart is None or answer.score is None or counterpart.score is None:
            continue
        first_answers, second_answers = pairs.setdefault(answer.benchmark, ([], []))
        first_answers.append(answer)
        second_answers.append(counterpart)
    if not pairs:
        raise InputError(
            "the two runs have no scored row in common; evaluate both on the same data"
        )
    if shared < min(len(first), len(second)):
        raise InputError(
            f"the two runs share {shared} rows of {len(first)} and {len(second)}: their data"
            " differ; evaluate both on the same data"
        )
    return pairs


def _questions(
    name: str, first_answers: Sequence[Answer], second_answers: Sequence[Answer]
) -> NDArray[np.float64]:
    """Scores of each question for both models, and its weights for both: [questions, 4].

    Where F1 is the score, weights depend on the answers.
    """
    first, second = question_scores(first_answers, name), question_scores(second_answers, name)
    ours, theirs = question_weights(first_answers, name), question_weights(second_answers, name)
    return np.array([(first[q], second[q], ours[q], theirs[q]) for q in first], dtype=float)


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of both models, 0 to 100: [2]."""
    return _weighted(values, np.ones(len(values)))


def _bootstrap(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Scores of both models on resampled questions: [DRAWS, 2].

    Questions with equal values form a kind; the number of draws of each kind is multinomial.
    """
    kinds, counts = np.unique(values, axis=0, return_counts=True)  # [kinds, 4], [kinds]
    few = max(1, DRAW_CELLS // len(kinds))
    parts = []
    for start in range(0, DRAWS, few):
        size = min(few, DRAWS - start)
        draws = rng.multinomial(len(values), counts / len(values), size=size)  # [few, kinds]
        parts.append(_weighted(kinds, draws))
    return np.concatenate(parts)


def _weighted(values: NDArray[np.float64], counts: NDArray[Any]) -> NDArray[np.float64]:
    """Scores of both models where each question counts so often, 0 to 100: [..., 2].

    Args:
        values: scores and weights, [questions, 4].
        counts: [..., questions].
    """
    scores = []
    for score, weight in zip(values.T[:2], values.T[2:], strict=True):
        total = counts @ weight  # 0 without any "yes", where F1 is 0
        scores.append(100 * (counts * weight) @ score / np.where(total == 0, 1, total))
    return np.stack(scores, axis=-1)


def _interval(draws: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _ratios(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """100 * second / first; draws in which the first scores 0 count as unchanged."""
    first, second = draws[:, 0], draws[:, 1]
    return 100 * np.divide(second, first, out=np.ones_like(first), where=first > 0)


def _difference(
    name: str, values: NDArray[np.float64], means: NDArray[np.float64], draws: NDArray[np.float64]
) -> Difference:
    worse = int((values[:, 1] < values[:, 0]).sum())
    better = int((values[:, 1] > values[:, 0]).sum())
    first, second = float(means[0]), float(means[1])
    return Difference(
        name,
        len(values),
        first,
        second,
        _interval(draws[:, 1] - draws[:, 0]),
        100 * second / first if first else None,
        _interval(_ratios(draws)) if first else None,
        worse,
        better,
        mcnemar(worse, better),
    )


def _overall(
    by_benchmark: Sequence[Difference],
    samples: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> Difference:
    """Mean over benchmarks, each with the same weight."""
    mean = np.mean([means for means, _ in samples], axis=0)
    draws = np.mean([draws for _, draws in samples], axis=0)
    ratios = [_ratios(draws) for means, draws in samples if means[0]]
    retained = [
        difference.retained for difference in by_benchmark if difference.retained is not None
    ]
    worse = sum(difference.worse for difference in by_benchmark)
    better = sum(difference.better for difference in by_benchmark)
    return Difference(
        OVERALL,
        sum(difference.questions for difference in by_benchmark),
        float(mean[0]),
        float(mean[1]),
        _interval(draws[:, 1] - draws[:, 0]),
        float(np.mean(retained)) if retained else None,
        _interval(np.mean(ratios, axis=0)) if ratios else None,
        worse,
        better,
        mcnemar(worse, better),
    )
