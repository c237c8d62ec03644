"""Answers that changed between models, on a page: how sure each difference is, and examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from interlace.evaluation.scores.answers import row_number
from interlace.report.facts.changes import (
    EXPLAINED,
    MEANINGS,
    Answers,
    Change,
    changes,
    compared,
    difference_cells,
    difference_headings,
    examples,
    retained_text,
)
from interlace.report.facts.table import Table
from interlace.report.page.images import Picture, picture
from interlace.report.render import render

Pictures = Callable[[str, Sequence[int]], Mapping[int, Sequence[Image.Image]]]


@dataclass(frozen=True)
class Pair:
    """Two models, their differences, and how much the second retains."""

    first: str
    second: str
    table: Table
    retained: str


@dataclass(frozen=True)
class Example:
    """A row that models answered with different scores, with its images."""

    change: Change
    images: Sequence[Picture]


@dataclass(frozen=True)
class Kind:
    """Changes of one kind: how many there are, and some to look at."""

    name: str
    meaning: str
    count: int
    examples: Sequence[Example]


@dataclass(frozen=True)
class Comparison:
    """Everything that a page shows of how models' answers differ."""

    pairs: Sequence[Pair]
    kinds: Sequence[Kind]
    explained: str = EXPLAINED

    @property
    def partial(self) -> bool:
        """True where some changed answers are not shown."""
        return any(len(kind.examples) < kind.count for kind in self.kinds)


def comparison(
    answers: Answers, limit: int, pictures: Pictures, most: int | None = None
) -> Comparison:
    """Compare models' answers.

    Args:
        answers: by model.
        limit: changed answers to show of each kind and benchmark.
        pictures: the images of a benchmark's rows, from its name and their positions.
        most: changed answers to show of each kind; None: any number.
    """
    pairs = [
        Pair(
            first,
            second,
            Table(difference_headings(first, second), [difference_cells(row) for row in rows]),
            retained_text(first, second, rows[-1]),
        )
        for (first, second), rows in compared(answers).items()
    ]
    changed, models = changes(answers), list(answers)
    counts = Counter(change.kind for change in changed)
    with_images = _with_images(examples(changed, limit, most), pictures)
    kinds = [
        Kind(
            kind,
            meaning.format(first=models[0], last=models[-1]),
            count,
            [example for example in with_images if example.change.kind == kind],
        )
        for kind, meaning in MEANINGS.items()
        if (count := counts[kind])
    ]
    return Comparison(pairs, kinds)


def comparison_page(answers: Answers, limit: int, pictures: Pictures) -> str:
    """Write a page of its own about how models' answers differ; arguments as of `comparison`."""
    title = f"Answers of {', '.join(answers)}"
    return render("page.html", title=title, answers=comparison(answers, limit, pictures))


def _with_images(changed: Sequence[Change], pictures: Pictures) -> list[Example]:
    rows: dict[str, list[int]] = {}
    for change in changed:
        rows.setdefault(change.first.benchmark, []).append(row_number(change.first.sample_id))
    images = {benchmark: pictures(benchmark, numbers) for benchmark, numbers in rows.items()}
    return [
        Example(
            change,
            [
                picture(image)
                for image in images[change.first.benchmark].get(
                    row_number(change.first.sample_id), ()
                )
            ],
        )
        for change in changed
    ]
