"""Which answers changed between models: what pruning breaks, and what tuning mends.

The terminal and a page show the same: how sure each difference is, then answers to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from interlace.errors import InputError
from interlace.evaluation.scores.answers import Answer, row_number
from interlace.evaluation.scores.significance import LEVEL, Difference, differences
from interlace.report.page import html as page
from interlace.report.page.html import escaped

Answers = Mapping[str, Sequence[Answer]]  # by model
Pictures = Callable[[str, Sequence[int]], Mapping[int, Sequence[Image.Image]]]

LOST, HEALED, GAINED, UNDONE = "lost", "healed", "gained", "undone"
MEANINGS = {
    LOST: "{first} was better than {last}",
    HEALED: "a model between was worse than {first}; {last} is as good again",
    GAINED: "{last} is better than {first}",
    UNDONE: "a model between was better than {first}; {last} is only as good",
}
HEADINGS = ["benchmark", "n", "first", "second", "difference", "worse", "better", "p"]
EXPLAINED = (
    f"difference in points, with its {LEVEL:.0%} interval (paired bootstrap over questions); worse"
    " and better: questions; p: exact McNemar test on them, not corrected for how many are tested"
)


@dataclass(frozen=True)
class Change:
    """A row to which models gave answers of different worth.

    Attributes:
        kind: `LOST`, `HEALED`, `GAINED` or `UNDONE`.
        answers: by model, in the order of the models.
    """

    kind: str
    answers: dict[str, Answer]

    @property
    def asked(self) -> Answer:
        """The first model's answer, for what was asked and what is true."""
        return next(iter(self.answers.values()))


def changes(answers: Answers) -> list[Change]:
    """Rows whose score is not the same for all models, in the order of `MEANINGS`.

    Args:
        answers: by model; the first is what others are compared with.
    """
    others = [
        {(answer.benchmark, answer.sample_id): answer for answer in given}
        for given in answers.values()
    ]
    found = []
    for key, answer in others[0].items():
        row = [given.get(key) for given in others]
        scores = [one.score for one in row if one is not None and one.score is not None]
        if len(scores) == len(row) and len(set(scores)) > 1:
            shown = {name: one for name, one in zip(answers, row, strict=True) if one}
            found.append(Change(_kind(scores), shown | {next(iter(answers)): answer}))
    return sorted(found, key=lambda change: list(MEANINGS).index(change.kind))


def _kind(scores: Sequence[float]) -> str:
    if scores[-1] < scores[0]:
        return LOST
    if scores[-1] > scores[0]:
        return GAINED
    return HEALED if min(scores) < scores[0] else UNDONE


def compared(answers: Answers) -> dict[tuple[str, str], list[Difference]]:
    """How every two models differ, the earlier first.

    Raises:
        InputError: fewer than two models, or they were not asked the same.
    """
    if len(answers) < 2:
        raise InputError("compare: give at least two files of answers")
    return {
        (first, second): differences(answers[first], answers[second])
        for first, second in combinations(answers, 2)
    }


def some(found: Sequence[Change], limit: int) -> list[Change]:
    """At most `limit` changes of each kind in each benchmark, in their order."""
    places: dict[tuple[str, str], list[Change]] = {}
    for change in found:
        places.setdefault((change.kind, change.asked.benchmark), []).append(change)
    return [change for group in places.values() for change in islice(group, limit)]


def cells(difference: Difference) -> list[str]:
    """A difference as text, for the columns of `HEADINGS`."""
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


def changes_text(answers: Answers, limit: int) -> RenderableType:
    """Both parts for the terminal.

    Args:
        answers: by model.
        limit: changed answers to print of each kind and benchmark.
    """
    parts: list[RenderableType] = []
    for (first, second), found in compared(answers).items():
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
        for heading in _headings(first, second):
            table.add_column(heading, justify="left" if heading == "benchmark" else "right")
        for difference in found[:-1]:
            table.add_row(*cells(difference))
        table.add_section()
        table.add_row(*cells(found[-1]), style="bold")
        parts += [table, _retained(first, second, found[-1]), ""]
    parts.append(Text(EXPLAINED, style="dim"))
    for change in some(changes(answers), limit):
        parts += ["", _change_text(change, list(answers))]
    return Group(*parts)


def _headings(first: str, second: str) -> list[str]:
    return [{"first": first, "second": second}.get(heading, heading) for heading in HEADINGS]


def _retained(first: str, second: str, overall: Difference) -> str:
    if overall.retained is None or overall.retained_interval is None:
        return f"{first} scores 0, so nothing is retained"
    low, high = overall.retained_interval
    return (
        f"{second} retains {overall.retained:.1f}% of {first} [{low:.1f}, {high:.1f}]"
        " (mean of ratios)"
    )


def _change_text(change: Change, models: Sequence[str]) -> Text:
    asked = change.asked
    text = Text(f"{change.kind}: {asked.benchmark} {asked.sample_id}\n", style="bold")
    text.append(f"{asked.prompt}\n", style="not bold")
    width = max(map(len, [*models, "true"]))
    for name, said, score in _lines(change):
        mark = "" if score is None else f"  ({score:g})"
        text.append(f"  {name.ljust(width)}  {said}{mark}\n", style="not bold")
    text.rstrip()
    return text


def _lines(change: Change) -> Iterator[tuple[str, str, float | None]]:
    yield "true", change.asked.target, None
    for name, answer in change.answers.items():
        yield name, answer.answer.strip(), answer.score


def changes_section(answers: Answers, limit: int, pictures: Pictures) -> str:
    """Both parts as HTML, with a heading, to be put into a page.

    Args:
        answers: by model.
        limit: changed answers to show of each kind and benchmark.
        pictures: the images of a benchmark's rows, from its name and their places.
    """
    body = "<h2>Answers compared</h2>\n"
    for (first, second), found in compared(answers).items():
        body += f"<h3>{escaped(second)} and {escaped(first)}</h3>\n"
        body += page.table(_headings(first, second), [cells(one) for one in found])
        body += f"<p>{escaped(_retained(first, second, found[-1]))}</p>\n"
    body += f"<p>{escaped(EXPLAINED)}</p>\n"
    every = changes(answers)
    shown = some(every, limit)
    models = list(answers)
    images = _images(shown, pictures)
    for kind, meaning in MEANINGS.items():
        n = sum(change.kind == kind for change in every)
        said = meaning.format(first=models[0], last=models[-1])
        body += f"<h3>{kind}: {n} answers</h3>\n<p>{escaped(said)}</p>\n"
        for change in shown:
            if change.kind == kind:
                body += _change_figure(change, images)
    return body


def _images(
    shown: Sequence[Change], pictures: Pictures
) -> dict[tuple[str, int], Sequence[Image.Image]]:
    places: dict[str, list[int]] = {}
    for change in shown:
        places.setdefault(change.asked.benchmark, []).append(row_number(change.asked.sample_id))
    return {
        (benchmark, row): images
        for benchmark, rows in places.items()
        for row, images in pictures(benchmark, rows).items()
    }


def _change_figure(change: Change, images: Mapping[tuple[str, int], Sequence[Image.Image]]) -> str:
    asked = change.asked
    shown = images.get((asked.benchmark, row_number(asked.sample_id)), ())
    lines = "".join(
        f'<dt class="mark" style="color:{page.model_ink(name)}">{escaped(name)}</dt>'
        f"<dd>{escaped(said)}{'' if score is None else f' ({score:g})'}</dd>\n"
        for name, said, score in _lines(change)
    )
    return (
        f"<figure>\n{''.join(page.image(picture) for picture in shown)}"
        f"<pre>{escaped(asked.prompt)}</pre>\n<dl>\n{lines}</dl>\n"
        f"<small>{escaped(asked.benchmark)} {escaped(asked.sample_id)}</small>\n</figure>\n"
    )
