"""Scores of the dense, pruned and tuned model, benchmark by benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from interlace.errors import InputError
from interlace.evaluation.scores.result import Evaluation
from interlace.evaluation.scores.retention import (
    Scores,
    overall_error,
    overall_score,
    relative_performance,
)
from interlace.report.figures.style import INK, MODEL_COLOURS, MUTED, drawn, label

Measured = tuple[float, float]  # a score and its standard error, 0 where there is none

MEAN = "mean"
ROW = 0.44  # height of a benchmark, inches
NARROWEST = 8.0  # points of score that the axis shows at least
MARKERS = {"dense": "o", "pruned": "s", "tuned": "D"}


def retention_figure(evaluations: Mapping[str, Evaluation], path: Path) -> None:
    """Draw the scores of the dense, pruned and tuned model on every benchmark all three have.

    Points with whiskers of one standard error, on an axis of the scores that there are; the means
    are the last row.

    Args:
        evaluations: by `dense`, `pruned` and `tuned`.
        path: where to write, .png, .svg or .pdf.

    Raises:
        InputError: no benchmark has all three scores.
    """
    dense = evaluations["dense"].scores
    names = [n for n in dense if all(n in evaluation.scores for evaluation in evaluations.values())]
    if not names:
        raise InputError("no benchmark was scored on the dense, the pruned and the tuned model")
    rows = {model: _rows(evaluations[model].scores, names) for model in MODEL_COLOURS}
    retention = relative_performance(
        {name: evaluations["tuned"].scores[name] for name in names},
        {name: dense[name] for name in names},
    )
    shares = [*map(retention.ratios.get, names), retention.percent]
    labels = [*map(label, names), MEAN]
    if len(names) == 1:  # the mean of one benchmark says nothing new
        rows = {model: scores[:1] for model, scores in rows.items()}
        shares, labels = shares[:1], labels[:1]
    with drawn(path, 8.0, 1.5 + ROW * len(labels)) as figure:
        axes = figure.add_subplot()
        for index, (model, scores) in enumerate(rows.items()):
            _points(axes, scores, model, (index - 1) * 0.2)
        for row, share in enumerate(shares):
            text = "\u2013" if share is None else f"{share:.1f}%"
            _beside(axes, row, text, fontsize=9, color=INK)
        _beside(axes, -0.85, "tuned / dense", fontsize=8, color=MUTED)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        if len(labels) > len(names):
            axes.axhline(len(names) - 0.5, color=MUTED, linewidth=0.8)
            axes.get_yticklabels()[-1].set_fontweight("bold")
        axes.set_xlim(score_range([score for scores in rows.values() for score in scores]))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("score, of 0 to 100; whiskers: one standard error")
        axes.set_title("What pruning costs and healing returns", pad=24)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, handlelength=1.0)


def score_range(scores: Sequence[Measured]) -> tuple[float, float]:
    """Return the ends of an axis that shows scores with their errors, and little else.

    Args:
        scores: 0 to 100, with their standard errors.

    Returns:
        Low and high, at least `NARROWEST` apart: differences within chance stay small.
    """
    low = min(score - error for score, error in scores)
    high = max(score + error for score, error in scores)
    room = max(0.04 * (high - low), (NARROWEST - (high - low)) / 2)
    return max(low - room, -1.0), min(high + room, 101.0)


def _rows(scores: Scores, names: Sequence[str]) -> list[Measured]:
    """Return the scores on some benchmarks, then their mean."""
    rows = [(scores[name].score, scores[name].standard_error or 0.0) for name in names]
    return [*rows, (overall_score(scores, names) or 0.0, overall_error(scores, names) or 0.0)]


def _points(axes: Axes, scores: Sequence[Measured], model: str, offset: float) -> None:
    axes.errorbar(
        [score for score, _ in scores],
        np.arange(len(scores)) + offset,
        xerr=[error for _, error in scores],
        fmt=MARKERS[model],
        markersize=5.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        color=MODEL_COLOURS[model],
        elinewidth=1.4,
        label=model,
    )


def _beside(axes: Axes, row: float, text: str, *, fontsize: float, color: str) -> None:
    """Write on the right of the axes, at the height of a row."""
    axes.text(
        1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=fontsize,
        color=color,
    )  # fmt: skip
