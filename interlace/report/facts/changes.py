"""Answers that changed between models: lost by pruning, healed by tuning; losses that rose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from interlace.errors import InputError
from interlace.evaluation.scores.answers import Answer
from interlace.evaluation.scores.losses import loss_per_token
from interlace.evaluation.scores.significance import LEVEL, Difference, differences

Answers = Mapping[str, Sequence[Answer]]  # by model

LOST, HEALED, GAINED, UNDONE = "lost", "healed", "gained", "undone"
RISEN = "loss rose"
MEANINGS = {
    LOST: "{last} scores lower than {first}",
    HEALED: "a model in between scores lower than {first}; {last} recovers",
    GAINED: "{last} scores higher than {first}",
    UNDONE: "a model in between scores higher than {first}; {last} does not",
    RISEN: "no answer is generated; the loss on the true answer is higher for {last} than for"
    " {first}; the greatest rises first",
}
BEGINNING = 240  # characters that are shown of a long text
EXPLAINED = (
    f"difference: points, with the {LEVEL:.0%} interval of a paired bootstrap over questions;"
    " worse, better: numbers of questions; p: exact McNemar test, not corrected for multiple tests"
)


@dataclass(frozen=True)
class Change:
    """A row that models answered with different scores, or whose loss rose.

    Attributes:
        kind: a key of `MEANINGS`.
        answers: by model, in the order of the models.
    """

    kind: str
    answers: dict[str, Answer]

    @property
    def first(self) -> Answer:
        """The first model's answer; all share its prompt and target."""
        return next(iter(self.answers.values()))

    @property
    def prompt(self) -> str:
        """The prompt that all share; the beginning of a long text."""
        return beginning(self.first.prompt) if self.kind == RISEN else self.first.prompt

    @property
    def rise(self) -> float:
        """The rise of the loss from the first model to the last, nats a token; 0 unless shown."""
        if self.kind != RISEN:
            return 0.0
        *_, last = self.answers.values()
        return loss_per_token(last) - loss_per_token(self.first)

    @property
    def lines(self) -> list[tuple[str, str, float | None]]:
        """The target, then each model's answer or loss: a name, a text, a score."""
        if self.kind == RISEN:
            losses = {name: loss_per_token(answer) for name, answer in self.answers.items()}
            dense = loss_per_token(self.first)
            texts = [
                (name, f"{loss:.2f} nats a token" + (f", {loss - dense:+.2f}" if i else ""), None)
                for i, (name, loss) in enumerate(losses.items())
            ]
            return [("true", beginning(self.first.target), None), *texts]
        answers = [
            (name, answer.answer.strip(), answer.score) for name, answer in self.answers.items()
        ]
        return [("true", self.first.target, None), *answers]


def changes(answers: Answers) -> list[Change]:
    """Return rows that changed, in the order of `MEANINGS`; of risen losses the greatest first.

    A row changed if its score differs between models. In a benchmark to which none of them
    generated an answer (`evaluate.heldout_metric: next-token`), it changed if its loss rose.

    Args:
        answers: by model; the others are compared with the first.
    """
    by_model = {
        model: {(answer.benchmark, answer.sample_id): answer for answer in rows}
        for model, rows in answers.items()
    }
    generated = {a.benchmark for rows in answers.values() for a in rows if a.answer}
    changed = []
    for key in next(iter(by_model.values())):
        row = {model: rows[key] for model, rows in by_model.items() if key in rows}
        kind_of = _kind if key[0] in generated else _kind_by_loss
        if len(row) == len(by_model) and (kind := kind_of(list(row.values()))):
            changed.append(Change(kind, row))
    order = list(MEANINGS)
    return sorted(changed, key=lambda change: (order.index(change.kind), -change.rise))


def beginning(text: str) -> str:
    """Return a text, or the beginning of a long one in one line."""
    if len(text) <= BEGINNING:
        return text
    return " ".join(text[:BEGINNING].split()[:-1]) + " \u2026"


def _kind_by_loss(answers: Sequence[Answer]) -> str | None:
    """Tell if the last loss is higher than the first; None where it is not, or one is missing."""
    if any(answer.loss is None for answer in answers):
        return None
    return RISEN if loss_per_token(answers[-1]) > loss_per_token(answers[0]) else None


def _kind(answers: Sequence[Answer]) -> str | None:
    """Tell how the scores differ; None where they do not, or one is missing."""
    scores = [answer.score for answer in answers if answer.score is not None]
    if len(scores) < len(answers) or len(set(scores)) == 1:
        return None
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


def examples(changed: Sequence[Change], limit: int, most: int | None = None) -> list[Change]:
    """Return some changes of each kind, in their order.

    Args:
        changed: all changes.
        limit: of each kind in each benchmark.
        most: of each kind; None: any number.
    """
    benchmarks, kinds = Counter[tuple[str, str]](), Counter[str]()
    selection = []
    for change in changed:
        benchmark = change.kind, change.first.benchmark
        if benchmarks[benchmark] < limit and (most is None or kinds[change.kind] < most):
            selection.append(change)
            benchmarks[benchmark] += 1
            kinds[change.kind] += 1
    return selection


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
