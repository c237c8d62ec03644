"""Findings of the study on real weights, as sentences and small tables of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from studies.real_and_demo import APART
from studies.real_rows import RERANKED, Facts, Layer
from studies.real_rules_page import compared_rules
from studies.real_table import Cell, Name, Table, label, percent

PROTECTED: Name = ("interlace", "auto")
PUBLISHED: Name = ("interlace", "none")


def sentences(table: Table) -> Iterator[str]:
    """Say what the rows say of INTERLACE, of the search, and of compensation."""
    yield "## What the rows say\n"
    for ratio in table.ratios:
        yield from _of_ratio(table, ratio)
    yield from _of_interlace(table)
    for ratio in table.ratios:
        yield from _of_search(table, ratio)
    yield ""


def _of_ratio(table: Table, ratio: float) -> Iterator[str]:
    best = table.best(ratio)
    if best is None:
        return
    near = []
    for name in table.names:
        cell = table.cell(name, ratio)
        if cell and name != best[0] and min(row.z or 0.0 for row in cell.rows) < APART:
            near.append(label(name))
    within = f"; within {APART:g} paired errors of it: {', '.join(near)}" if near else ""
    yield f"- {percent(ratio)}: {label(best[0])} loses least, {best[1].text}{within}."


def _of_interlace(table: Table) -> Iterator[str]:
    for ratio in table.ratios:
        bare, spared = table.cell(PUBLISHED, ratio), table.cell(PROTECTED, ratio)
        if bare and spared:
            share = spared.rise / bare.rise
            yield (
                f"- INTERLACE at {percent(ratio)}: {bare.text} as published, {spared.text} with"
                f" `protect: auto`, {share:.2f} of it."
            )


def _of_search(table: Table, ratio: float) -> Iterator[str]:
    searched = table.best(ratio, without=[n for n, _ in table.names if n != "search"])
    other = table.best(ratio, without=("search", RERANKED))
    if searched is None or other is None:
        return
    cell = searched[1]
    line = (
        f"- `search` at {percent(ratio)}: {cell.text}, {cell.rise / other[1].rise:.2f} of the best"
        f" other method ({label(other[0])}, {other[1].text})"
    )
    repaired = [
        c
        for name in table.names
        if name[0] in ("search", RERANKED) and (c := table.cell(name, ratio, table.default))
    ]
    if repaired:
        best = min(repaired, key=lambda c: c.rise)
        line += f"; compensated {best.text}, {best.rise / other[1].rise:.2f} of it"
    yield line + "."


def draws(table: Table) -> Iterator[str]:
    """List the draws of `random`, and say how many beat the best method."""
    yield "## Random draws\n"
    yield "| ratio | protected | rise of each draw |\n|---:|---|---|"
    for ratio in table.ratios:
        for protect in ("none", "auto"):
            if cell := table.cell(("random", protect), ratio):
                values = " ".join(f"{row.rise:.2f}" for row in cell.rows)
                yield f"| {percent(ratio)} | {'yes' if protect == 'auto' else 'no'} | {values} |"
    yield ""
    for ratio in table.ratios:
        cell, best = table.cell(("random", "none"), ratio), table.best(ratio)
        if cell and best:
            ahead = sum((row.rise or 0.0) < best[1].rise for row in cell.rows)
            yield (
                f"- {percent(ratio)}: {ahead} of {len(cell.rows)} draws are better than the best"
                f" method ({label(best[0])})."
            )
    yield ""


def protection(table: Table, layers: Sequence[Layer]) -> Iterator[str]:
    """Set choices with and without protection side by side, where they differ."""
    sinks = [layer.layer for layer in layers if layer.is_sink]
    yield "## Protection of sink layers\n"
    if sinks:
        yield f"Layers that make or end a massive activation: {listed(sinks)}.\n"
    lines = []
    for name in table.names:
        for ratio in table.ratios:
            bare, spared = (table.cell((name[0], p), ratio) for p in ("none", "auto"))
            if name[1] == "auto" and name[0] != "random" and bare and spared:
                hit = sorted(set(sinks) & set(table.drops((name[0], "none"), ratio)))
                if table.drops(name, ratio) != table.drops((name[0], "none"), ratio):
                    lines.append(
                        f"| {name[0]} | {percent(ratio)} | {listed(hit) or '-'} | {bare.text}"
                        f" | {spared.text} | {spared.rise / bare.rise:.2f} |"
                    )
    if lines:
        yield "| method | ratio | sink layers dropped | published | protected | share |"
        yield "|---|---:|---|---:|---:|---:|"
        yield from lines
    changed = {m for m, p in table.names if p == "auto"}
    unchanged = sorted({m for m, _ in table.names} - changed - {"random"})
    yield f"\nProtection changes no choice of {', '.join(unchanged) or 'no method'}.\n"


def dropped_layers(table: Table) -> Iterator[str]:
    """Tabulate the layers that each choice drops at each ratio."""
    yield f"| method | {' | '.join(map(percent, table.ratios))} |"
    yield "|---|" + "---|" * len(table.ratios)
    for name in table.names:
        drops = [table.drops(name, ratio) for ratio in table.ratios]
        if any(drops):
            yield f"| {label(name)} | {' | '.join(listed(layers) or '-' for layers in drops)} |"
    yield ""


def unseen(layers: Sequence[Layer]) -> Iterator[str]:
    """Name the layers without which the loss is greatest, and those that similarity does not see.

    Args:
        layers: of the dense model, at least one.
    """
    by_loss = sorted(layers, key=lambda layer: -layer.loss)
    by_cosine = sorted(layers, key=lambda layer: layer.cosine)
    few = max(len(layers) // 5, 1)
    critical = {layer.layer for layer in by_loss[:few]}
    seen = {layer.layer for layer in by_cosine[:few]}
    greatest = listed(sorted(critical))
    yield f"The {few} layers without which, each alone, the loss is greatest: {greatest}."
    yield f"The {few} of least similarity: {listed(sorted(seen))}."
    if blind := sorted(critical - seen):
        yield f"Similarity does not see {listed(blind)}."
    yield ""


def listed(layers: Sequence[int]) -> str:
    """Return layers for readers."""
    return " ".join(map(str, layers))


def compensation(table: Table, facts: Facts) -> Iterator[str]:
    """Say what compensation does to each method, and compare its rules."""
    yield "## Compensation\n"
    for ratio in table.ratios:
        better, worse = [], []
        for name in table.names:
            if pair := _same_draws(table, name, ratio):
                plain, repaired = pair
                (better if repaired < plain else worse).append(label(name))
        if better or worse:
            but = f", not of {', '.join(worse)}" if worse else ""
            yield (
                f"- {percent(ratio)}: it lowers the rise of {len(better)} of"
                f" {len(better) + len(worse)} choices{but}."
            )
    yield ""
    yield from compared_rules(table, facts.rules)


def _same_draws(table: Table, name: Name, ratio: float) -> tuple[float, float] | None:
    """Return the mean rise of the draws that are compensated, before and after."""
    plain, repaired = table.cell(name, ratio), table.cell(name, ratio, table.default)
    if plain is None or repaired is None:
        return None
    seeds = {row.seed for row in repaired.rows}
    same = tuple(row for row in plain.rows if row.seed in seeds)
    return (Cell(same).rise, repaired.rise) if same else None
