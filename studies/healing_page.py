"""The page of the study of healing: tables, a figure, and a comparison with the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

from interlace.report.figures.style import MUTED, drawn
from studies.contents import with_contents
from studies.healing_scores import HealedScore, Results, Run

FIRST = "interlace-optimal"
RECIPE, TARGET = "recipe", 30.0  # percent of the recipe's loss
SEARCHED = (0.25, 0.4)  # the ratios that learning rates are chosen at
SHARE_RATES = {RECIPE: 2e-5, "local": 3e-3}  # learning rates on shares of the training set
COLOURS = ("#1B998B", "#46648C", "#E4572E", "#93A1B5", "#C49A2A", "#7A5195")
Rows = dict["Run", "HealedScore"]


def write_page(
    results: Results,
    variants: Sequence[str],
    others: Sequence[str],
    dense: float,
    questions: int,
    n_rows: int,
    folder: Path,
) -> None:
    """Write study-healing.md and .png.

    Args:
        results: all runs.
        variants: ways to heal, in order.
        others: ways that are measured at 25% alone.
        dense: the dense model's score, percent.
        questions: of the held-out file.
        n_rows: of the training set.
        folder: where to write.
    """
    rows, error = results.scores, 100 * sqrt(dense / 100 * (1 - dense / 100) / questions)
    sections = [_head(dense, error), *_comparison(rows, variants, dense)]
    sections += _target(rows, variants, dense, error)
    sections += [*_samples(rows, n_rows), *_others(rows, others)]
    sections += _rates(rows, variants)
    text = with_contents("\n".join(sections) + "\n")
    (folder / "study-healing.md").write_text(text, encoding="utf-8")
    figure(rows, n_rows, dense, folder / "study-healing.png")


def _head(dense: float, error: float) -> str:
    return f"""# Healing on the demo

Layers of the demo's 24 are dropped, the rest is healed in several ways on the same number of
samples, and the held-out benchmarks are answered. Scores are percent of exact answers, the mean
over benchmarks; the dense model gets {dense:.1f}, and the standard error of a score over the
questions is about {error:.1f}. Each way has the learning rate that scored best with seed 0, for the
method at that ratio (at 10% that of 25%): with seed 0 it is the best of three to five that the CSV
holds. Seeds change the order of samples, and for `random` the layers; at 10% there is one.
`{FIRST}` stands for INTERLACE: at 10 and 25% it drops the same layers, and at 40%
INTERLACE itself runs out of triplets.

- `recipe`: tunes the planned layers end to end on answers, as published;
- `local`: the layers left of each segment learn the dense segment's function;
- `compensated, then recipe`: the recipe from least-squares compensated weights;
- `distilled`: the recipe with the dense model's logits and its hidden states after the anchors;
- `compensated, distilled`: the same from compensated weights;
- `all`: from compensated weights, half of the updates local, the rest distilled.

    make study-healing

takes hours on two cores and resumes where it stopped. [study-healing.csv](study-healing.csv) holds
all runs; its `training_mix` is the score on 400 training rows that no run trained on.

![Scores by samples seen](study-healing.png)
"""


def cell(
    rows: Rows, variant: str, method: str, ratio: float, steps: int, rate: float | None = None
) -> dict[int, float]:
    """Return a cell's scores by seed, at the best learning rate of the search."""
    scores: dict[int, dict[float, float]] = {}
    for run, score in rows.items():
        key = (run.variant, run.method, run.ratio, run.steps)
        if key == (variant, method, ratio, steps) and rate in (None, run.rate):
            scores.setdefault(run.seed, {})[run.rate] = score.heldout
    if rate is None:
        rate = chosen(rows, variant, ratio, method)
    return {
        seed: scores_by_rate[rate]
        for seed, scores_by_rate in sorted(scores.items())
        if rate in scores_by_rate
    }


def searched_at(ratio: float) -> float:
    """Return the ratio whose search gives the learning rate."""
    return min(SEARCHED, key=lambda at: abs(at - ratio))


def chosen(rows: Rows, variant: str, ratio: float, method: str = FIRST) -> float:
    """Return the best learning rate of a variant in the search near a ratio."""
    first = _steps(rows)
    trials = {
        run.rate: score.heldout
        for run, score in rows.items()
        if (run.variant, run.method, run.ratio, run.seed, run.steps)
        == (variant, method, searched_at(ratio), 0, first)
    }
    return max(trials, key=lambda rate: (trials[rate], -rate)) if trials else 0.0


def _steps(rows: Rows) -> int:
    """Return the number of updates of the compared runs, those of the first search."""
    return next((run.steps for run in rows if run.steps), 0)


def _shown(scores: Sequence[float]) -> str:
    if not scores:
        return "-"
    return f"{fmean(scores):.1f}" + (f" ± {stdev(scores):.1f}" if len(scores) > 1 else "")


def _cells(rows: Rows) -> list[tuple[str, float]]:
    """Sort methods and ratios, `FIRST` before other methods."""
    cells = {(run.method, run.ratio) for run in rows}
    return sorted(cells, key=lambda cell: (cell[0] != FIRST, *cell))


def _comparison(rows: Rows, variants: Sequence[str], dense: float) -> Iterator[str]:
    steps = _steps(rows)
    yield f"## After {steps} updates\n"
    yield f"| method | ratio | pruned | {' | '.join(variants)} |"
    yield "|---|---:|" + "---:|" * (len(variants) + 1)
    for method, ratio in _cells(rows):
        scores = [_shown([*cell(rows, "pruned", method, ratio, 0, 0.0).values()])]
        scores += [_shown([*cell(rows, v, method, ratio, steps).values()]) for v in variants]
        yield f"| `{method}` | {100 * ratio:g}% | {' | '.join(scores)} |"
    yield f"\nThe dense model: {dense:.1f}. Mean over seeds ± their standard deviation.\n"


def _target(rows: Rows, variants: Sequence[str], dense: float, error: float) -> Iterator[str]:
    """Report the share of the recipe's loss that each other way recovers."""
    steps, others = _steps(rows), [v for v in variants if v != RECIPE]
    yield "## Recovery of the recipe's loss\n"
    yield "The recipe's loss is dense - recipe, of mean scores. A way recovers the share"
    yield "(score - recipe) / (dense - recipe) of it; a negative share is worse than the recipe."
    yield "Losses within a standard error have no row.\n"
    yield f"| method | ratio | recipe's loss | {' | '.join(others)} |"
    yield "|---|---:|---:|" + "---:|" * len(others)
    reached_target: dict[str, dict[str, bool]] = {}
    for method, ratio in _cells(rows):
        recipe_scores = cell(rows, RECIPE, method, ratio, steps)
        lost = dense - fmean(recipe_scores.values()) if recipe_scores else 0.0
        if lost <= 0:
            continue
        recovered = {}
        for variant in others:
            scores = cell(rows, variant, method, ratio, steps)
            if scores:
                recovered[variant] = 100 * (fmean(scores.values()) - dense + lost) / lost
        if lost >= error:
            shown = [f"{recovered[v]:.0f}%" if v in recovered else "-" for v in others]
            yield f"| `{method}` | {100 * ratio:g}% | {lost:.1f} | {' | '.join(shown)} |"
        if ratio in SEARCHED:
            for variant, value in recovered.items():
                reached_elsewhere = reached_target.setdefault(method, {}).get(variant, True)
                reached_target[method][variant] = reached_elsewhere and value >= TARGET
    yield f"\nAt least {TARGET:.0f}% at both 25% and 40%:\n"
    for method, ways in reached_target.items():
        reached = ", ".join(f"`{name}`" for name, is_reached in ways.items() if is_reached)
        yield f"- `{method}`: {reached or 'none'}"
    yield ""


def _samples(rows: Rows, n_rows: int) -> Iterator[str]:
    curves = by_steps(rows)
    if not curves:
        return
    yield "## Scores by samples\n"
    rates = ", ".join(f"`{variant}` at {rate:g}" for variant, rate in SHARE_RATES.items())
    yield f"`{FIRST}` at 25%, seed 0, one pass over a share of the training set ({rates}).\n"
    all_steps = sorted({steps for points in curves.values() for steps in points})
    heads = [f"{100 * steps * 32 / n_rows:.0f}%" for steps in all_steps]
    yield f"| | {' | '.join(heads)} |"
    yield "|---|" + "---:|" * len(all_steps)
    for variant, points in curves.items():
        cells = [f"{points[steps]:.1f}" if steps in points else "-" for steps in all_steps]
        yield f"| `{variant}` | {' | '.join(cells)} |"
    yield ""


def by_steps(rows: Rows) -> dict[str, dict[int, float]]:
    """Return scores of INTERLACE at 25%, seed 0, by variant and updates."""
    curves: dict[str, dict[int, float]] = {}
    for variant, rate in SHARE_RATES.items():
        for run, score in rows.items():
            key = (run.variant, run.method, run.ratio, run.seed, run.rate)
            if key == (variant, FIRST, 0.25, 0, rate):
                curves.setdefault(variant, {})[run.steps] = score.heldout
    return {variant: points for variant, points in curves.items() if len(points) > 1}


def _others(rows: Rows, others: Sequence[str]) -> Iterator[str]:
    """Report the recipe on other layers than the plan's, and with adapters."""
    steps = _steps(rows)
    scores_by_way = {way: cell(rows, way, FIRST, 0.25, steps) for way in (RECIPE, *others)}
    if not any(scores_by_way[way] for way in others):
        return
    yield "## Other layers, adapters\n"
    yield f"`{FIRST}` at 25% after {steps} updates: the recipe, and the recipe on as many evenly"
    yield "spaced layers, on the anchors, on all layers, and with adapters of rank 32.\n"
    yield "| | score | learning rate |\n|---|---:|---:|"
    for way, scores in scores_by_way.items():
        if scores:
            yield f"| `{way}` | {_shown([*scores.values()])} | {chosen(rows, way, 0.25):g} |"
    yield ""


def _rates(rows: Rows, variants: Sequence[str]) -> Iterator[str]:
    searches = [(method, ratio) for method, ratio in _cells(rows) if ratio in SEARCHED]
    heads = (f"`{method}`, {100 * ratio:g}%" for method, ratio in searches)
    yield f"## Learning rates\n\n| | {' | '.join(heads)} |"
    yield "|---|" + "---:|" * len(searches)
    for variant in variants:
        rates = (f"{chosen(rows, variant, ratio, method):g}" for method, ratio in searches)
        yield f"| `{variant}` | {' | '.join(rates)} |"


def figure(rows: Rows, n_rows: int, dense: float, path: Path) -> None:
    """Draw the score by the share of the training set that was seen."""
    with drawn(path, 8.0, 4.2) as canvas:
        axes = canvas.add_subplot()
        axes.axhline(dense, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="dense")
        for colour, (variant, points) in zip(COLOURS, by_steps(rows).items(), strict=False):
            shares = [100 * steps * 32 / n_rows for steps in sorted(points)]
            scores = [points[steps] for steps in sorted(points)]
            axes.plot(shares, scores, marker="o", color=colour, label=variant)
        axes.set_xlabel("training samples seen (percent of the set)")
        axes.set_ylabel("exact match (percent)")
        axes.set_title("INTERLACE at 25% of the layers, healed")
        axes.legend()
