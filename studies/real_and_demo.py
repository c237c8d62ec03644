"""The studies of methods on the demo and on real weights, side by side."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from pathlib import Path
from statistics import fmean

from studies.real_losses import mean_and_spread
from studies.real_table import Cell, Name, Table, label, percent

DEMO_QUESTIONS = 150  # of each of the demo's benchmarks
APART = 2.0  # standard errors between two methods that differ
HEADING = "## Beside real weights"
COSTS = (  # what a choice of layers may cost, and the methods that cost no more
    ("prompts, one pass", ("interlace", "interlace-optimal", "interlace-oa", "interlace-tn",
                           "consecutive", "shortgpt", "angular-block")),
    ("answers, with gradients", ("taylor",)),
    ("answers, a pass per layer and step", ("sleb",)),
    ("answers, many passes", ("search",)),
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """A method's result on one model: more is worse, and its standard error."""

    loss: float
    error: float


Results = Mapping[str, Measured]


def demo_results(path: Path) -> dict[float, dict[str, Measured]]:
    """Return the demo's errors of methods by ratio, percent of answers that are wrong.

    Args:
        path: docs/study-methods.csv.
    """
    scores: dict[tuple[float, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            cell = scores[float(row["ratio"]), row["method"]]
            cell[int(row["seed"])].append(float(row["score"]))
    results: dict[float, dict[str, Measured]] = defaultdict(dict)
    for (ratio, method), by_seed in scores.items():
        mean, spread = mean_and_spread([fmean(values) for values in by_seed.values()])
        errors = [_error(values) for values in by_seed.values()]
        error = sqrt(fmean(errors) ** 2 + spread**2 / len(by_seed))
        results[ratio][method] = Measured(100 - mean, error)
    return dict(results)


def _error(scores: Sequence[float]) -> float:
    """Return the standard error of the mean over benchmarks, percent."""
    variances = [score * (100 - score) / DEMO_QUESTIONS for score in scores]
    return sqrt(sum(variances)) / len(scores)


def real_results(table: Table, ratio: float) -> dict[str, Measured]:
    """Return the rises of methods as published, without protection of sinks."""
    cells = {n[0]: table.cell(n, ratio) for n in table.names if n[1] == "none"}
    return {method: Measured(c.rise, c.error) for method, c in cells.items() if c}


def is_apart(first: Measured, second: Measured) -> bool:
    """Return True if two results differ by more than chance: errors as if independent."""
    return abs(first.loss - second.loss) > APART * sqrt(first.error**2 + second.error**2)


@dataclass(frozen=True)
class Comparison:
    """The pairs of methods that both studies have at one ratio.

    Attributes:
        pairs: how many.
        demo: of these, pairs whose results differ on the demo.
        real: pairs whose results differ on real weights.
        both: pairs that differ on both.
        opposite: of these, pairs in the opposite order: better on real weights, worse there.
    """

    pairs: int
    demo: int
    real: int
    both: int
    opposite: Sequence[tuple[str, str]]


def compared(demo: Results, real: Results) -> Comparison:
    """Compare the order of all pairs of methods on both models."""
    pairs = list(combinations([method for method in real if method in demo], 2))
    on_demo = [pair for pair in pairs if is_apart(*(demo[method] for method in pair))]
    on_real = [pair for pair in pairs if is_apart(*(real[method] for method in pair))]
    both = [pair for pair in on_demo if pair in on_real]
    opposite = []
    for pair in both:
        better, worse = sorted(pair, key=lambda method: real[method].loss)
        if demo[better].loss > demo[worse].loss:
            opposite.append((better, worse))
    return Comparison(len(pairs), len(on_demo), len(on_real), len(both), opposite)


def _comparisons(table: Table, demo: Path) -> dict[float, Comparison]:
    results = demo_results(demo)
    return {
        ratio: compared(results[ratio], real_results(table, ratio))
        for ratio in table.ratios
        if ratio in results
    }


def beside_demo(table: Table, demo: Path) -> Iterator[str]:
    """Say on the page of real weights what the demo's page could not say, and where they differ."""
    yield "## Beside the demo\n"
    yield "[The same study on the demo](study-methods.md) has a model trained from nothing,"
    yield "and its measure is exact match. Two methods are apart where they differ by more than"
    yield f"{APART:g} standard errors, added as if independent.\n"
    comparisons = _comparisons(table, demo)
    yield from _agreement(comparisons, "on the demo", "here")
    for ratio, found in comparisons.items():
        decided = found.real - found.both
        yield f"- {percent(ratio)}: {decided} pairs that the demo leaves open are apart here."
    yield ""


def beside_real(table: Table, demo: Path) -> str:
    """Return the section of the demo's page about the study on real weights."""
    lines = [
        f"{HEADING}\n",
        "[The same study on a pretrained decoder](study-real.md) measures the loss on held-out",
        f"text. Two methods are apart where they differ by more than {APART:g} standard errors,",
        "added as if independent. Where both pages are sure and disagree, trust the other one for",
        "pretrained models.\n",
        *_agreement(_comparisons(table, demo), "here", "on real weights"),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _agreement(comparisons: Mapping[float, Comparison], demo: str, real: str) -> Iterator[str]:
    yield f"| ratio | pairs of methods | apart {demo} | apart {real} | apart on both | opposite |"
    yield "|---:|---:|---:|---:|---:|---:|"
    for ratio, found in comparisons.items():
        numbers = (found.pairs, found.demo, found.real, found.both, len(found.opposite))
        yield f"| {percent(ratio)} | {' | '.join(map(str, numbers))} |"
    yield ""
    for ratio, found in comparisons.items():
        better: dict[str, list[str]] = {}
        for first, second in found.opposite:
            better.setdefault(first, []).append(second)
        if not better:
            yield f"- {percent(ratio)}: no pair is in the opposite order."
        for first, others in better.items():
            names = ", ".join(f"`{name}`" for name in others)
            yield f"- {percent(ratio)}: `{first}` is better {real} and worse {demo} than {names}."
    yield ""


def which_method(table: Table, demo: Path) -> Iterator[str]:
    """Tabulate the best method for each cost, from both studies."""
    results = demo_results(demo)
    shares = [percent(ratio) for ratio in table.ratios]
    yield f"| layers are chosen by | {' | '.join(shares)} | demo, 25% |"
    yield "|---|" + "---|" * len(shares) + "---|"
    fixed: list[tuple[str, Name]] = [
        ("`interlace` as published", ("interlace", "none")),
        ("`interlace`, `protect: auto` (default)", ("interlace", "auto")),
    ]
    for text, name in fixed:
        cells = [table.cell(name, ratio) for ratio in table.ratios]
        shown = [
            _rise(table, name, r, c) if c else "-" for r, c in zip(table.ratios, cells, strict=True)
        ]
        yield f"| {text} | {' | '.join(shown)} | {_score(results, [name[0]])} |"
    for text, methods in COSTS:
        others = [method for method, _ in table.names if method not in methods]
        shown = []
        for ratio in table.ratios:
            best = table.best(ratio, without=others)
            shown.append(
                f"`{label(best[0])}` {_rise(table, best[0], ratio, best[1])}" if best else "-"
            )
        yield f"| {text} | {' | '.join(shown)} | {_score(results, methods)} |"
    yield ""


def _rise(table: Table, name: Name, ratio: float, cell: Cell) -> str:
    repaired = table.cell(name, ratio, table.default)
    return f"{cell.rise:.2f}" + (f" → {repaired.rise:.2f}" if repaired else "")


def _score(results: Mapping[float, Results], methods: Sequence[str]) -> str:
    on_demo = {m: results.get(0.25, {})[m] for m in methods if m in results.get(0.25, {})}
    if not on_demo:
        return "-"
    best = min(on_demo, key=lambda method: on_demo[method].loss)
    return f"`{best}` {100 - on_demo[best].loss:.1f}"


def with_section(text: str, section: str) -> str:
    """Replace a section of a page, or add it at the end.

    Args:
        text: the page.
        section: begins with its heading.
    """
    lines, heading = text.rstrip("\n").split("\n"), section.splitlines()[0]
    begin, end = _span(lines, heading)
    parts = (lines[:begin], section.split("\n"), lines[end:])
    bare = ("\n".join(part).strip("\n") for part in parts)
    return "\n\n".join(part for part in bare if part) + "\n"


def section_of(text: str, heading: str) -> str:
    """Return a section of a page with its heading; nothing where it is not there."""
    lines = text.split("\n")
    begin, end = _span(lines, heading)
    return "\n".join(lines[begin:end]).rstrip("\n")


def _span(lines: Sequence[str], heading: str) -> tuple[int, int]:
    """Return where a section begins and ends; both are the end of the page without it."""
    if heading not in lines:
        return len(lines), len(lines)
    begin = lines.index(heading)
    rest = range(begin + 1, len(lines))
    return begin, next((n for n in rest if lines[n].startswith("## ")), len(lines))
