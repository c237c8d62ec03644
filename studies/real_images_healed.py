"""What the page of the study on real weights says about healing with images, and its figure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import cast

from interlace.report.figures.style import HAIRLINE, INK, LINE_COLOURS, MUTED, drawn
from studies.real_and_demo import APART
from studies.real_images_healing import BATCH, STARTS, STEPS, VALIDATION, WAYS
from studies.real_images_rows import ImageRow
from studies.real_rows import PLAIN
from studies.real_table import Name, Table, label, percent, shown

FIGURE = "study-real-images-healing.png"
Choice = tuple[Name, float]  # a choice of layers, and its ratio


def exact(table: Table, name: Name, ratio: float, kind: str, weights: str = PLAIN) -> str:
    """Return a percentage of exact answers and its error; of draws, their mean alone."""
    cell = table.cell(name, ratio, weights)
    if cell is None:
        return "-"
    mean = fmean(getattr(row, kind) for row in cell.rows)
    if len(cell.rows) > 1:
        return f"{mean:.1f}"
    return f"{mean:.1f} ± {getattr(cell.rows[0], f'{kind}_error'):.1f}"


def healed(table: Table, trained_tokens: int) -> Iterator[str]:
    """Yield the lines of the section about healing; none before a model was healed.

    Args:
        table: of all rows.
        trained_tokens: answer tokens of the rows that models are healed on.
    """
    choices = _choices(table)
    if not choices:
        return
    yield "### Healing with images\n"
    yield f"All ways learn from the same {STEPS * BATCH} training rows in {STEPS} updates, on"
    yield f"{trained_tokens:,} answer tokens of the data, or the dense model's in their place:\n"
    for name, way in WAYS.items():
        yield f"- `{name}`: {way.meaning}."
    yield ""
    yield from _rates(table)
    heads = [f"{label(name)}, {percent(ratio)}" for name, ratio in choices]
    for text, number in (("rise of the loss", None), ("exact answers, percent", "exact")):
        yield f"| {text} | {' | '.join(heads)} |"
        yield "|---|" + "---:|" * len(heads)
        for way in (*STARTS, *WAYS):
            numbers = [
                exact(table, name, ratio, number, way)
                if number
                else shown(table.cell(name, ratio, way))
                for name, ratio in choices
            ]
            yield f"| {_words(way)} | {' | '.join(numbers)} |"
        yield ""
    yield f"![Exact answers before and after healing]({FIGURE})\n"
    yield from _best(table)


def _rates(table: Table) -> Iterator[str]:
    """Yield the losses that learning rates are chosen by."""
    tried = [row for row in _images(table) if row.validation is not None]
    rates = sorted({row.rate for row in tried})
    first = f"{label((tried[0].method, tried[0].protect))}, {percent(tried[0].ratio)}"
    yield f"Each way has the learning rate of least loss on {VALIDATION} other training rows, tried"
    yield f"on {first}. The table has that loss, nats per answer token.\n"
    heads = [f"{rate:g}" if rate else "untrained" for rate in rates]
    yield f"| learning rate | {' | '.join(heads)} |"
    yield "|---|" + "---:|" * len(rates)
    for way in (*STARTS, *WAYS):
        losses = {row.rate: row.validation for row in tried if row.weights == way}
        least = min(losses.values(), default=None) if way in WAYS else None
        yield f"| {_words(way)} | {' | '.join(_marked(losses.get(r), least) for r in rates)} |"
    yield ""


def _words(way: str) -> str:
    return STARTS[way].meaning if way in STARTS else way


def _marked(value: float | None, least: float | None) -> str:
    text = "-" if value is None else f"{value:.3f}"
    return f"**{text}**" if value is not None and value == least else text


def _best(table: Table) -> Iterator[str]:
    """Yield for each ratio the model of least loss among compensated and healed ones."""
    chosen = {(*name, ratio) for name, ratio in _choices(table)}
    for ratio in table.ratios:
        rows = [
            row
            for row in _images(table)
            if row.ratio == ratio
            and row.weights != PLAIN
            and row.z is not None
            and (row.method, row.protect, row.ratio) in chosen
        ]
        if not rows:
            continue
        rows.sort(key=lambda row: row.rise or 0.0)
        near = [_named(row) for row in rows[1:] if (row.z or 0.0) <= APART]
        least = f"{rows[0].rise:.3f} ± {rows[0].error:.3f}"
        yield f"- {percent(ratio)}: {_named(rows[0])} loses least, {least}; within"
        yield f"  {APART:g} paired errors of it: {', '.join(near) or 'none'}."
    yield ""


def _named(row: ImageRow) -> str:
    return f"{label((row.method, row.protect))} ({_words(row.weights)})"


def _images(table: Table) -> list[ImageRow]:
    return cast(list[ImageRow], table.rows)


def _choices(table: Table) -> list[Choice]:
    """Return the choices that were healed, in their order."""
    rows = [row for row in table.rows if row.weights in WAYS and row.rise is not None]
    return list(dict.fromkeys(((row.method, row.protect), row.ratio) for row in rows))


def draw_healed(table: Table, path: Path) -> None:
    """Draw the percentage of exact answers of each choice before and after healing."""
    choices = _choices(table)
    if not choices:
        return
    ways = (*STARTS, *WAYS)
    colours = dict(zip(ways, (MUTED, INK, *LINE_COLOURS), strict=False))
    dense = next(row.exact for row in _images(table) if row.method == "dense")
    with drawn(path, 9.0, 1.6 + 0.75 * len(choices)) as canvas:
        axes = canvas.add_subplot()
        axes.axvline(dense or 0.0, color=HAIRLINE, linestyle="--", label="dense")
        for place, (name, ratio) in enumerate(choices):
            for number, way in enumerate(ways):
                if cell := table.cell(name, ratio, way):
                    row = cast(ImageRow, cell.rows[0])
                    axes.errorbar(
                        row.exact or 0.0,
                        place + (number / len(ways) - 0.4) * 0.8,
                        xerr=row.exact_error,
                        fmt="D" if way in STARTS else "o",
                        color=colours[way],
                        label=None if place else _words(way),
                    )
        axes.set_xlabel("exact answers (percent)")
        axes.set_yticks(
            range(len(choices)), [f"{label(name)}, {percent(ratio)}" for name, ratio in choices]
        )
        axes.set_ylim(len(choices) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        canvas.legend(loc="outside upper left", ncols=3, fontsize=8)
