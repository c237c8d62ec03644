"""Figures of what training and evaluation measured: the loss curve, scores per benchmark."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from interlace.errors import InputError, MissingInputError
from interlace.evaluation.scores.result import Evaluation
from interlace.evaluation.scores.retention import relative_performance
from interlace.report.figures.style import (
    HAIRLINE,
    INK,
    MODEL_COLOURS,
    MUTED,
    SPAN_COLOURS,
    drawn,
    label,
)

SMOOTH_SHARE = 0.05  # window of the smoothed loss, share of its points


def retention_figure(evaluations: Mapping[str, Evaluation], path: Path) -> None:
    """Draw the scores of the dense, pruned and tuned model on every benchmark all three have.

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
    retention = relative_performance(evaluations["tuned"].scores, dense)
    with drawn(path, 8.0, 1.5 + 0.44 * len(names)) as figure:
        axes = figure.add_subplot()
        for index, model in enumerate(MODEL_COLOURS):
            _bars(axes, evaluations[model], names, model, (index - 1) * 0.27)
        for row, name in enumerate(names):
            ratio = retention.ratios.get(name)
            text = "\u2013" if ratio is None else f"{ratio:.1f}%"
            axes.text(103, row, text, va="center", fontsize=9, color=INK)
        axes.text(103, -0.85, "tuned / dense", va="center", fontsize=8, color=MUTED)
        axes.set_yticks(range(len(names)), [label(name) for name in names])
        axes.set_ylim(len(names) - 0.45, -0.55)
        axes.set_xlim(0, 100)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("score (0 to 100), whiskers: one standard error")
        axes.set_title("What pruning costs and healing returns", pad=24)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, handlelength=1.0)


def _bars(axes: Axes, result: Evaluation, names: list[str], model: str, offset: float) -> None:
    scores = [result.scores[name] for name in names]
    axes.barh(
        np.arange(len(names)) + offset,
        [score.score for score in scores],
        height=0.25,
        color=MODEL_COLOURS[model],
        label=model,
        xerr=[score.standard_error or 0.0 for score in scores],
        error_kw={"ecolor": INK, "elinewidth": 0.8, "alpha": 0.55},
    )


def loss_figure(curve: Path | str, path: Path) -> None:
    """Draw the loss of fine-tuning, with the learning rate and the gradient's norm below it.

    Where there was no end-to-end training the figure says so.

    Args:
        curve: CSV with columns step, loss, learning_rate, grad_norm; empty cells are skipped.
        path: where to write, .png, .svg or .pdf.

    Raises:
        InputError: the file has no such columns.
    """
    columns = _curve(Path(curve), ("step", "loss", "learning_rate", "grad_norm"))
    if not columns:
        _say_untrained(path)
        return
    with drawn(path, 8.0, 4.8) as figure:
        loss_axes, rate, norm = figure.subplot_mosaic(
            [["loss", "loss"], ["rate", "norm"]], height_ratios=[2.4, 1]
        ).values()
        step, loss = columns["step"], columns["loss"]
        loss_axes.plot(step, loss, color=HAIRLINE, linewidth=1.2, label="each point")
        loss_axes.plot(
            step, _smoothed(loss), color=MODEL_COLOURS["tuned"], linewidth=2, label="smoothed"
        )
        loss_axes.set_ylabel("loss on answers (nats per token)")
        loss_axes.set_title("Healing the pruned model")
        loss_axes.legend(loc="upper right")
        rate.plot(step, columns["learning_rate"], color=SPAN_COLOURS[1])
        rate.set_title("learning rate", fontsize=9.5, fontweight="normal", pad=4)
        peak = float(np.nanmax(columns["learning_rate"]))
        rate.set_yticks([0, peak], ["0", f"{peak:.2g}"])
        norm.plot(step, columns["grad_norm"], color=SPAN_COLOURS[3])
        norm.set_title("gradient norm", fontsize=9.5, fontweight="normal", pad=4)
        for axes in (rate, norm):
            axes.set_xlabel("step")
            axes.set_ylim(bottom=0)


def local_loss_figure(curve: Path, path: Path) -> bool:
    """Draw the relative error of local healing by step, the mean and each layer's.

    Args:
        curve: CSV with columns step, relative_error and layer_I.
        path: where to write, .png, .svg or .pdf.

    Returns:
        False where no layer was healed locally, and so nothing is drawn.

    Raises:
        InputError: the file has no such columns.
    """
    columns = _curve(curve, ("step", "relative_error"))
    if not columns:
        return False
    step = columns["step"]
    with drawn(path, 8.0, 3.2) as figure:
        axes = figure.add_subplot()
        layers = [name for name in columns if name.startswith("layer_")]
        for index, name in enumerate(layers):
            label = "each layer" if index == 0 else None
            axes.plot(step, columns[name], color=HAIRLINE, linewidth=1.2, label=label)
        colour = MODEL_COLOURS["tuned"]
        axes.plot(step, columns["relative_error"], color=colour, linewidth=2, label="mean")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("step")
        axes.set_ylabel("squared error / squared change")
        axes.set_title("Local healing")
        axes.legend(loc="upper right")
    return True


def _say_untrained(path: Path) -> None:
    with drawn(path, 8.0, 1.2) as figure:
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no end-to-end training", ha="center", va="center", color=MUTED)


def _curve(path: Path, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Read all columns of a curve, `names` among them; empty where it has no points."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows, header = list(reader), reader.fieldnames or ()
    except FileNotFoundError:
        raise MissingInputError(path) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MissingInputError(path, f"not a readable table ({error})") from None
    if not set(names) <= set(header):
        raise MissingInputError(path, f"expected rows with the columns {', '.join(names)}")
    if not rows:
        return {}
    columns = {name: _numbers(path, name, rows) for name in header}
    for name in names:
        if not np.isfinite(columns[name]).any():
            raise MissingInputError(path, f"column {name} holds no number")
    return columns


def _numbers(path: Path, name: str, rows: list[dict[str, str]]) -> NDArray[np.float64]:
    """Return a column's numbers, NaN for an empty cell."""
    try:
        return np.array([float(row[name]) if row[name] else np.nan for row in rows])
    except ValueError as error:
        raise MissingInputError(path, f"column {name}: {error}") from None


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the exponential mean of the points so far, without the pull of the first one."""
    past = 1 - 1 / max(1.0, SMOOTH_SHARE * len(values))
    total = weight = 0.0
    smooth = np.full_like(values, np.nan)
    for index, value in enumerate(values):
        if np.isfinite(value):
            total = past * total + (1 - past) * value
            weight = past * weight + (1 - past)
            smooth[index] = total / weight
    return smooth
