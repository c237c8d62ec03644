"""The page of the study of methods: tables, a figure, and a comparison with the papers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import mean

from interlace.report.figures.style import HAIRLINE, INK, MUTED, drawn
from studies.contents import with_contents

MATH = ("digit_sum", "digit_two_step", "bar_difference", "text_compare")
TABLE_5 = ("interlace", "interlace-tn", "interlace-oa", "random", "consecutive")  # best first
DOMAIN_AWARE = ("math-aware", "nonmath-aware", "mixed")
RATIO_COLOURS = ("#1B998B", "#46648C", "#E4572E")

Cells = Mapping[tuple[str, float], "Cell"]


@dataclass(frozen=True)
class Cell:
    """One method at one ratio.

    Attributes:
        score: exact match, mean over benchmarks and seeds, percent.
        spread: standard deviation over seeds; None for a single run.
        seeds: number of runs.
        drop: layers dropped, of a single run.
        pairs: drops from pairs, after triplets ran out.
        by_source: exact match by benchmark, mean over seeds.
        reason: why there is no score.
    """

    score: float | None = None
    spread: float | None = None
    seeds: int = 0
    drop: tuple[int, ...] = ()
    pairs: int = 0
    by_source: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    def of(self, sources: Sequence[str]) -> float:
        """Average over some benchmarks."""
        return mean(self.by_source[name] for name in sources)


def write_page(
    cells: Cells, dense: Mapping[str, float], ratios: Sequence[float], folder: Path
) -> None:
    """Write study-methods.md and study-methods.png.

    Args:
        cells: by method and ratio.
        dense: the dense model's scores by benchmark.
        ratios: the columns.
        folder: where to write.
    """
    methods = list(dict.fromkeys(method for method, _ in cells))
    figure(cells, methods, ratios, mean(dense.values()), folder / "study-methods.png")
    sections = [_head(dense, ratios), *_tables(cells, methods, dense, ratios)]
    sections += ["## Against the papers\n", *_table_5(cells), *_regimes(cells, ratios)]
    sections += _refused(cells)
    text = with_contents("\n".join(sections))
    (folder / "study-methods.md").write_text(text, encoding="utf-8")


def _head(dense: Mapping[str, float], ratios: Sequence[float]) -> str:
    shares = ", ".join(f"{100 * ratio:g}%" for ratio in ratios)
    return f"""# Every method on the demo, before tuning

Layers are dropped at {shares} of the 24, nothing is tuned, and the {len(dense)} held-out
benchmarks of the demo are answered. Scores are percent of exact answers, the mean over
benchmarks; the dense model gets {mean(dense.values()):.1f}. Every method drops the same number of
layers (`select.base=all`) and keeps the first three, which DeepStack feeds, and those that its own
paper protects. `random` is the mean of five seeds ± their standard deviation; every other
method is one run. The standard error of a score over its held-out rows is about half a point, so
smaller differences are within chance. The demo is small, its layers began as copies of one another,
and the papers' numbers are after tuning: this page compares choices of layers, it does not forecast
the scores of a large model.

    make study-methods

repeats the study as DVC experiments, one after another, and resumes where it stopped.
[study-methods.csv](study-methods.csv) holds all scores.

![Scores of all methods at three ratios](study-methods.png)
"""


def _tables(
    cells: Cells, methods: Sequence[str], dense: Mapping[str, float], ratios: Sequence[float]
) -> Iterator[str]:
    yield "## Scores\n"
    head = [f"{100 * ratio:g}%" for ratio in ratios]
    columns = [*head, *(f"math, {share}" for share in head)]
    yield f"| method | {' | '.join(columns)} |"
    yield "|---|" + "---:|" * len(columns)
    math = mean(dense[name] for name in MATH)
    dense_row = [f"{mean(dense.values()):.1f}"] * len(ratios) + [f"{math:.1f}"] * len(ratios)
    yield f"| dense | {' | '.join(dense_row)} |"
    for method in methods:
        row = [cells[method, ratio] for ratio in ratios]
        shown = [_shown(cell) for cell in row]
        shown += ["-" if cell.score is None else f"{cell.of(MATH):.1f}" for cell in row]
        yield f"| `{method}` | {' | '.join(shown)} |"
    yield f"\nMath is the mean over {', '.join(f'`{name}`' for name in MATH)}.\n"
    yield "## Dropped layers\n"
    yield f"| method | {' | '.join(head)} |"
    yield "|---|" + "---|" * len(ratios)
    for method in methods:
        row = [cells[method, ratio] for ratio in ratios]
        if any(cell.drop for cell in row):
            yield f"| `{method}` | {' | '.join(_dropped(cell) for cell in row)} |"
    yield "\nThe number of drops from pairs is in brackets, where triplets run out.\n"


def _shown(cell: Cell) -> str:
    if cell.score is None:
        return "-"
    return f"{cell.score:.1f}" + (f" ± {cell.spread:.1f}" if cell.spread is not None else "")


def _dropped(cell: Cell) -> str:
    layers = " ".join(map(str, cell.drop)) or "-"
    return layers + (f" ({cell.pairs})" if cell.pairs else "")


def _scored(cells: Cells, methods: Sequence[str], ratio: float) -> dict[str, Cell]:
    scored_cells = {method: cells.get((method, ratio), Cell()) for method in methods}
    return {method: cell for method, cell in scored_cells.items() if cell.score is not None}


def _order(scored_cells: Mapping[str, Cell]) -> str:
    ranked = sorted(scored_cells, key=lambda method: -(scored_cells[method].score or 0))
    return ", ".join(f"{method} {scored_cells[method].score:.1f}" for method in ranked)


def _table_5(cells: Cells) -> Iterator[str]:
    """Compare the order of INTERLACE's ablations at 25%."""
    scored_cells = _scored(cells, TABLE_5, 0.25)
    pairs = [pair for pair in combinations(TABLE_5, 2) if scored_cells.keys() >= set(pair)]
    swaps = [
        f"{worse} over {better}"
        for better, worse in pairs
        if (scored_cells[better].score or 0) < (scored_cells[worse].score or 0)
    ]
    yield (
        "INTERLACE, table 5 (8B, 25%, after tuning), orders its ablations interlace 72.7,"
        " interlace-tn 71.7, interlace-oa 69.1, random 62.1, consecutive 47.9."
    )
    yield f"Here, before tuning: {_order(scored_cells)}."
    difference = f"it differs in {'; '.join(swaps)}" if swaps else "there is no difference"
    yield f"Of {len(pairs)} pairs {len(pairs) - len(swaps)} have the paper's order; {difference}.\n"


def _regimes(cells: Cells, ratios: Sequence[float]) -> Iterator[str]:
    """Compare with the domain-aware paper at small and large ratios."""
    yield (
        "The domain-aware paper finds rankings by domain ahead of random choices and of CKA at 10"
        " and 25% (with exceptions for the 4B model at 10%), and its pooled INTERLACE, far behind"
        " at 25%, level with them at 40%.\n"
    )
    for ratio in ratios:
        scored_cells = _scored(cells, (*DOMAIN_AWARE, "random", "cka", "interlace-pooled"), ratio)
        aware = [scored_cells[name].score or 0 for name in DOMAIN_AWARE if name in scored_cells]
        lines = [f"- {100 * ratio:g}%: {_order(scored_cells)}."]
        for name in ("random", "cka", "interlace-pooled"):
            if name in scored_cells and aware:
                n_ahead = sum(score > (scored_cells[name].score or 0) for score in aware)
                lines.append(f"{n_ahead} of {len(aware)} domain-aware rankings beat {name}.")
        yield " ".join(lines)
    yield ""


def _refused(cells: Cells) -> Iterator[str]:
    reasons = [(key, cell.reason) for key, cell in cells.items() if cell.reason]
    if reasons:
        yield "## Not feasible\n"
        for (method, ratio), reason in reasons:
            yield f"- `{method}` at {100 * ratio:g}%: {reason}"
        yield ""


def figure(
    cells: Cells, methods: Sequence[str], ratios: Sequence[float], dense: float, path: Path
) -> None:
    """Draw a dot per method and ratio, with a whisker for the spread over seeds."""
    with drawn(path, 8.0, 1.2 + 0.32 * len(methods)) as canvas:
        axes = canvas.add_subplot()
        axes.axvline(dense, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"dense {dense:.1f}", (dense, 1), xycoords=("data", "axes fraction"), xytext=(-4, 4),
            textcoords="offset points", color=MUTED, fontsize=8.5, ha="right",
        )  # fmt: skip
        for row, method in enumerate(methods):
            row_scores = [cells[method, ratio].score for ratio in ratios]
            spots = [score for score in row_scores if score is not None]
            if spots:
                axes.plot(
                    [min(spots), max(spots)], [row, row], color=HAIRLINE, linewidth=2, zorder=1
                )
        for ratio, colour in zip(ratios, RATIO_COLOURS, strict=True):
            rows = [n for n, method in enumerate(methods) if cells[method, ratio].score is not None]
            row_cells = [cells[methods[n], ratio] for n in rows]
            axes.errorbar(
                [cell.score or 0.0 for cell in row_cells], rows,
                xerr=[cell.spread or 0.0 for cell in row_cells], fmt="o", color=colour,
                elinewidth=1.2, markersize=6, label=f"{100 * ratio:g}% of the layers",
            )  # fmt: skip
        axes.set_yticks(range(len(methods)), methods)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(
            "exact match before tuning (percent), whiskers: standard deviation over seeds"
        )
        axes.set_title("What each choice of layers costs", pad=30)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, handletextpad=0.2)
