"""Whether two models differ on the same questions, beyond chance. No torch here.

The unit is a question. Two numbers say it: the exact McNemar test on the questions that one model
answers better than the other (for graded scores it is the sign test), since only those speak about
the difference; and a paired bootstrap over questions, which gives the difference an interval in
points and also holds for graded scores, for questions asked in several ways, and for means over
benchmarks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from interlace.errors import InputError
from interlace.evaluation.scores.answers import ALL_RIGHT, Answer, question_scores

DRAWS = 10_000
LEVEL = 0.95  # of every interval
OVERALL = "all"

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """What one model scores less what another does, on the same questions.

    Attributes:
        name: of the benchmark; `OVERALL` for the mean over benchmarks.
        questions: answered by both.
        first: score of the first model, 0 to 100, and
        second: of the second.
        interval: of second - first, points, at `LEVEL`.
        retained: 100 * second / first; for `OVERALL` the mean of these ratios; none after 0.
        retained_interval: of it.
        worse: questions on which the second model scores less, and
        better: more.
        p: probability of a split at least so uneven between worse and better, if both models were
            equally good.
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
    """Exact two-sided McNemar test: worse ~ Binomial(worse + better, 1/2)."""
    n, term, tail = worse + better, 1, 0
    for i in range(min(worse, better) + 1):
        tail += term
        term = term * (n - i) // (i + 1)  # n over i + 1
    return float(min(Fraction(1), Fraction(2 * tail, 2**n)))  # integers: no overflow


def differences(
    first: Sequence[Answer], second: Sequence[Answer], *, seed: int = 0
) -> list[Difference]:
    """Compare two models on every benchmark that both answered, then on all of them.

    Args:
        first: answers of one model.
        second: answers of the other.
        seed: of the bootstrap.

    Returns:
        One for each benchmark, in the first one's order, and last the mean over benchmarks.

    Raises:
        InputError: they were not asked the same.
    """
    paired = _paired(first, second)
    rng = np.random.default_rng(seed)
    found, drawn = [], []
    for name, (ours, theirs) in paired.items():
        values = _questions(name, ours, theirs)
        means, draws = _means(values), _bootstrap(values, rng)
        found.append(_difference(name, values, means, draws))
        drawn.append((means, draws))
    return [*found, _overall(found, drawn)]


def _paired(
    first: Sequence[Answer], second: Sequence[Answer]
) -> dict[str, tuple[list[Answer], list[Answer]]]:
    """By benchmark, the answers of both to the rows for which both have a score."""
    others = {(answer.benchmark, answer.sample_id): answer for answer in second}
    paired: dict[str, tuple[list[Answer], list[Answer]]] = {}
    asked = 0
    for answer in first:
        other = others.get((answer.benchmark, answer.sample_id))
        asked += other is not None
        if other is None or answer.score is None or other.score is None:
            continue
        ours, theirs = paired.setdefault(answer.benchmark, ([], []))
        ours.append(answer)
        theirs.append(other)
    if not paired:
        raise InputError("the two runs answered no row in common; evaluate both on the same data")
    if asked < min(len(first), len(second)):
        raise InputError(
            f"the two runs share {asked} rows of {len(first)} and {len(second)}: their data"
            " differ; evaluate both on the same data"
        )
    return paired


def _questions(name: str, ours: Sequence[Answer], theirs: Sequence[Answer]) -> NDArray[np.float64]:
    """Score of each question for the first and the second model, and its weight: [questions, 3]."""
    first, second = question_scores(ours, name), question_scores(theirs, name)
    rows = Counter(answer.question_id for answer in ours)
    return np.array(
        [(first[q], second[q], 1 if name in ALL_RIGHT else rows[q]) for q in first], dtype=float
    )


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of both models, 0 to 100: [2]."""
    weights = values[:, 2]
    means: NDArray[np.float64] = 100 * weights @ values[:, :2] / weights.sum()
    return means


def _bootstrap(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Scores of both models on redrawn questions: [DRAWS, 2].

    Equal questions are drawn together: how often each kind comes is multinomial.
    """
    kinds, counts = np.unique(values, axis=0, return_counts=True)  # [kinds, 3], [kinds]
    drawn = rng.multinomial(len(values), counts / len(values), size=DRAWS)  # [DRAWS, kinds]
    weights = drawn * kinds[:, 2]
    means: NDArray[np.float64] = 100 * weights @ kinds[:, :2] / weights.sum(axis=1, keepdims=True)
    return means


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
    found: Sequence[Difference],
    drawn: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> Difference:
    """Means over benchmarks, each of which weighs the same."""
    mean = np.mean([means for means, _ in drawn], axis=0)
    draws = np.mean([draws for _, draws in drawn], axis=0)
    ratios = [_ratios(draws) for means, draws in drawn if means[0]]
    retained = [one.retained for one in found if one.retained is not None]
    worse, better = sum(one.worse for one in found), sum(one.better for one in found)
    return Difference(
        OVERALL,
        sum(one.questions for one in found),
        float(mean[0]),
        float(mean[1]),
        _interval(draws[:, 1] - draws[:, 0]),
        float(np.mean(retained)) if retained else None,
        _interval(np.mean(ratios, axis=0)) if ratios else None,
        worse,
        better,
        mcnemar(worse, better),
    )
