"""The table of runtimes, and what it says about those that fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.deploy.questions import equal_answers

MODELS = ("dense", "pruned")
HEADER = (
    "| runtime | version | opens it | same answers, dense | same answers, pruned | what to know |",
    "|---|---|---|--:|--:|---|",
)


@dataclass(frozen=True)
class Outcome:
    """What a runtime did with the checkpoints.

    Attributes:
        answers: by model.
        errors: by model, one line each.
        unready: why it did not run at all, one line.
    """

    answers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    unready: str = ""

    def opens(self) -> str:
        """Say in a word or two which checkpoints it opens."""
        if self.unready:
            return "not run"
        opened = [model for model in MODELS if model in self.answers]
        return {0: "no", 1: f"{'/'.join(opened)} only", 2: "yes"}[len(opened)]


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    version: str
    note: str
    outcome: Outcome


def table(rows: Sequence[Row], reference: Mapping[str, Sequence[str]]) -> str:
    """Compare all rows with the reference's answers; name failures below the table."""
    lines = [*HEADER, *(_line(row, reference) for row in rows)]
    failures = [line for row in rows for line in _failures(row)]
    return "\n".join([*lines, "", *failures]).rstrip() + "\n"


def _line(row: Row, reference: Mapping[str, Sequence[str]]) -> str:
    cells = [row.name, row.version, row.outcome.opens()]
    for model in MODELS:
        answers, expected = row.outcome.answers.get(model), reference.get(model)
        is_comparable = answers is not None and expected is not None
        cells.append(
            f"{equal_answers(answers, expected)} of {len(expected)}" if is_comparable else ""
        )
    return f"| {' | '.join([*cells, row.note])} |"


def _failures(row: Row) -> Iterator[str]:
    if row.outcome.unready:
        yield f"- {row.name} was not run: {row.outcome.unready}"
    for model, error in row.outcome.errors.items():
        yield f"- {row.name} does not open the {model} checkpoint: {error}"
