"""Answers that changed between models: lost by pruning, healed by tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from interlace.errors import InputError
from interlace.evaluation.scores.answers import Answer
from interlace.evaluation.scores.significance import LEVEL, Difference, differences

Answers = Mapping[str, Sequence[Answer]]  # by model

LOST, HEALED, GAINED, UNDONE = "lost", "healed", "gained", "undone"
MEANINGS = {
    LOST: "{last} scores lower than {first}",
    HEALED: "a model in between scores lower than {first}; {last} recovers",
    GAINED: "{last} scores higher than {first}",
    UNDONE: "a model in between scores higher than {first}; {last} does not",
}
EXPLAINED = (
    f"difference: points, with the {LEVEL:.0%} interval of a paired bootstrap over questions;"
    " worse, better: numbers of questions; p: exact McNemar test, not corrected for multiple tests"
)


@dataclass(frozen=True)
class Change:
    """A row that models answered with different scores.

    Attributes:
        kind: `LOST`, `HEALED`, `GAINED` or `UNDONE`.
        answers: by model, in the order of the models.
    """

    kind: str
    answers: dict[str, Answer]

    @property
    def first(self) -> Answer:
        """The first model's answer; all share its prompt and target."""
        return next(iter(self.answers.values()))

    @property
    def lines(self) -> list[tuple[str, str, float | None]]:
        """The target, then each model's answer: a name, a text, a score."""
        answers = [
            (name, answer.answer.strip(), answer.score) for name, answer in self.answers.items()
        ]
        return [("true", self.first.target, None), *answers]


def changes(answers: Answers) -> list[Change]:
    """Return rows whose score differs between models, in the order of `MEANINGS`.

    Args:
        answers: by model; the others are compared with the first.
    """
    by_model = {
        model: {(answer.benchmark, answer.sample_id): answer for answer in rows}
        for model, rows in answers.items()
    }
    changed = []
    for key in next(iter(by_model.values())):
        row = {model: rows[key] for model, rows in by_model.items() if key in rows}
        scores = [answer.score for answer in row.values() if answer.score is not None]
        if len(scores) == len(by_model) and len(set(scores)) > 1:
            changed.append(Change(_kind(scores), row))
    return sorted(changed, key=lambda change: list(MEANINGS).index(change.kind))


def _kind(scores: Sequence[float]) -> str:
    if scores[-1] < scores[0]:
        return LOST
    if scores[-1] > scores[0]:
        return GAINED
    return HEALED if min(scores) < scores[0] else UNDONE


def compared(answers: Answers) -> dict[tuple[str, str], list[Difference]]:
    """Return how each two models differ, the earlier first.

    Raises:
        InputError: fewer than two models, or they answered different questions.
    """
    if len(answers) < 2:
        raise InputError("compare: give at least two files of answers")
    return {
        (first, second): differences(answers[first], answers[second])
        for first, second in combinations(answers, 2)
    }


def examples(changed: Sequence[Change], limit: int) -> list[Change]:
    """Return at most `limit` changes of each kind in each benchmark, in their order."""
    groups: dict[tuple[str, str], list[Change]] = {}
    for change in changed:
        groups.setdefault((change.kind, change.first.benchmark), []).append(change)
    return [change for group in groups.values() for change in islice(group, limit)]


def difference_headings(first: str, second: str) -> list[str]:
    """Return the headings of a table of `difference_cells`."""
    return ["benchmark", "n", first, second, "difference", "worse", "better", "p"]


def difference_cells(difference: Difference) -> list[str]:
    """Return a difference as text, a cell for each heading."""
    low, high = difference.interval
    return [
        difference.name,
        str(difference.questions),
        f"{difference.first:.1f}",
        f"{difference.second:.1f}",
        f"{difference.second - difference.first:+.1f} [{low:+.1f}, {high:+.1f}]",
        str(difference.worse),
        str(difference.better),
        f"{difference.p:.3f}" if difference.p >= 0.001 else "<0.001",
    ]


def retained_text(first: str, second: str, overall: Difference) -> str:
    """Say how much of the first model's scores the second retains."""
    if overall.retained is None or overall.retained_interval is None:
        return f"retention is undefined: {first} scores 0"
    low, high = overall.retained_interval
    return (
        f"{second} retains {overall.retained:.1f}% of {first} [{low:.1f}, {high:.1f}]"
        " (mean of ratios)"
    )
