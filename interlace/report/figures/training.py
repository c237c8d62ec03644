"""Figures of training: the loss curve, the error of local healing."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from interlace.errors import MissingInputError
from interlace.report.figures.style import (
    HAIRLINE,
    MODEL_COLOURS,
    MUTED,
    SPAN_COLOURS,
    drawn,
)

SMOOTH_SHARE = 0.06  # standard deviation of the kernel that smooths the loss, share of the updates
MOST_POINTS = 500  # of the smoothed line
Floats = NDArray[np.float64]
Rise = tuple[float, float]  # of the loss over the dense model's, and its paired standard error
SMALL: dict[str, Any] = {"fontsize": 9.5, "fontweight": "normal", "pad": 4}  # of a panel's title


def loss_figure(curve: Path | str, path: Path, rises: Mapping[str, Rise] | None = None) -> None:
    """Draw the loss of fine-tuning, with the learning rate and the gradient's norm below it.

    Where there was no end-to-end training the figure says so.

    Args:
        curve: CSV with columns step, loss, learning_rate, grad_norm; empty cells are skipped.
        path: where to write, .png, .svg or .pdf.
        rises: on held-out answers, nats per token, of `pruned` and `tuned`: before and after.

    Raises:
        InputError: the file has no such columns.
    """
    columns = _curve(Path(curve), ("step", "loss", "learning_rate", "grad_norm"))
    if not columns:
        _say_untrained(path)
        return
    mosaic, ratios = [["loss", "loss"], ["rate", "norm"]], [1.0, 1.0]
    if rises:
        mosaic, ratios = [[*row, "rise"] for row in mosaic], [*ratios, 1.0]
    with drawn(path, 8.0, 4.8) as figure:
        axes: dict[str, Axes] = figure.subplot_mosaic(
            mosaic, height_ratios=[2.4, 1], width_ratios=ratios
        )
        _draw_loss(axes["loss"], columns["step"], columns["loss"])
        rate, norm = axes["rate"], axes["norm"]
        rate.plot(columns["step"], columns["learning_rate"], color=SPAN_COLOURS[1])
        peak = float(np.nanmax(columns["learning_rate"]))
        rate.set_yticks([0, peak], ["0", f"{peak:.2g}"])
        norm.plot(columns["step"], columns["grad_norm"], color=SPAN_COLOURS[3])
        for below, name in ((rate, "learning rate"), (norm, "gradient norm")):
            below.set_title(name, **SMALL)
            below.set_xlabel("step")
            below.set_ylim(bottom=0)
        if rises:
            _draw_rises(axes["rise"], rises)


def _draw_loss(axes: Axes, step: Floats, loss: Floats) -> None:
    axes.plot(step, loss, ".", color=MUTED, alpha=0.5, label="mean since the point before")
    grid = np.linspace(step[0], step[-1], min(len(step), MOST_POINTS))
    smooth = smoothed(grid, step, loss)
    axes.plot(grid, smooth, color=MODEL_COLOURS["tuned"], linewidth=2, label="smoothed")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("nats per answer token")
    axes.set_title("Healing: loss on training rows")
    axes.legend(loc="lower left", ncols=2)


def _draw_rises(axes: Axes, rises: Mapping[str, Rise]) -> None:
    """Draw what healing is for: how far the loss on held-out rows is above the dense model's."""
    axes.axhline(0, color=MODEL_COLOURS["dense"], linewidth=1.4)
    for x, (model, (value, error)) in enumerate(rises.items()):
        axes.errorbar(
            x, value, yerr=error, fmt="o", markersize=7, elinewidth=1.8, color=MODEL_COLOURS[model]
        )
    axes.set_xticks(range(len(rises)), rises)
    axes.set_xlim(-0.6, len(rises) - 0.4)
    axes.margins(y=0.15)
    axes.grid(visible=False, axis="x")
    axes.text(
        0.98, 0, "dense", transform=axes.get_yaxis_transform(), ha="right", va="bottom",
        fontsize=8.5, color=MODEL_COLOURS["dense"],
    )  # fmt: skip
    axes.set_title("loss over the dense model's,\non held-out rows", **SMALL)
    axes.set_xlabel("whiskers: one standard error")


def smoothed(grid: Floats, step: Floats, loss: Floats) -> Floats:
    """Average the loss around some steps, by a Gaussian kernel and the updates of each point.

    So the first point, which is one update alone, weighs little.

    Args:
        grid: the steps, [G].
        step: the last update of each point, [points].
        loss: mean of its updates, [points]; NaN: none.

    Returns:
        The smoothed loss, [G].
    """
    updates = np.diff(step, prepend=0.0)
    width = max(SMOOTH_SHARE * float(step[-1]), 1e-9)
    kernel = np.exp(-0.5 * ((grid[:, None] - step) / width) ** 2)  # [G, points]
    weights = kernel * np.where(np.isfinite(loss), updates, 0.0)
    with np.errstate(invalid="ignore"):  # no number near a step
        smooth: Floats = weights @ np.nan_to_num(loss) / weights.sum(axis=1)
    return smooth


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


def _curve(path: Path, names: Sequence[str]) -> dict[str, Floats]:
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


def _numbers(path: Path, name: str, rows: list[dict[str, str]]) -> Floats:
    """Return a column's numbers, NaN for an empty cell."""
    try:
        return np.array([float(row[name]) if row[name] else np.nan for row in rows])
    except ValueError as error:
        raise MissingInputError(path, f"column {name}: {error}") from None
