"""Disk by stage, bytes: outputs, and unfinished work while a stage runs."""

from __future__ import annotations

from dataclasses import dataclass

from interlace.params.healing import Recipe
from interlace.project.forecast.memory import trained_weights
from interlace.project.forecast.setting import ELEMENTS, Setting
from interlace.project.forecast.sizes import Sizes
from interlace.training.resume import MAX_POINTS
from interlace.training.rows import update_count

MEASUREMENT = 48  # bytes of a span of a sample in Parquet: cosines, counts, names


@dataclass(frozen=True)
class Disk:
    """Bytes on the disk.

    Attributes:
        stays: after the stage.
        passes: beside these, while it runs.
    """

    stays: float = 0
    passes: float = 0


def drawn_bytes(setting: Setting) -> Disk:
    """Return the rows of all sets and the fetched model; the draw is kept until it is joined."""
    rows = setting.rows
    drawn = (rows.train + rows.calibration + rows.probes) * rows.row_bytes
    return Disk(drawn + setting.fetched, rows.train * rows.row_bytes)


def measured_bytes(setting: Setting) -> Disk:
    """Return the measurements of spans, and mean states where they are kept."""
    params, rows, n = setting.params.collect, setting.rows, setting.dense.n_layers
    most = min(params.max_span or n, n)
    spans = sum(n - span + 1 for span in range(1, most + 1))
    samples = rows.calibration + rows.probes
    pooled = {"all": samples, "probes": rows.probes, "none": 0}[params.pooled]
    size = samples * spans * MEASUREMENT + pooled * 4 * n * setting.dense.width
    return Disk(size, size)


def pruned_bytes(setting: Setting) -> float:
    """Return the size of the pruned checkpoint."""
    dtype = setting.params.export.dtype
    return setting.pruned.total * ELEMENTS.get(dtype, setting.dense.stored_bytes)


def exported_bytes(setting: Setting) -> Disk:
    """Return the pruned checkpoint, which is written beside its place."""
    return Disk(pruned_bytes(setting))


def tuned_bytes(setting: Setting, sizes: Sizes, recipe: Recipe) -> Disk:
    """Return the tuned checkpoint's new files, and points to resume from.

    Files without trained weights are links. A point holds float32 weights and moments; for a moment
    there is one more.
    """
    count = trained_weights(setting, recipe) if recipe.max_steps else 0
    merged = trained_weights(setting, recipe.model_copy(update={"lora_rank": 0}))
    stored = ELEMENTS.get(setting.params.export.dtype, setting.dense.stored_bytes)
    points = 1 + min(MAX_POINTS, update_count(recipe, setting.trained_rows) // recipe.save_steps)
    return Disk(min(merged, sizes.total) * stored, points * 12 * count)


def answered_bytes(setting: Setting) -> Disk:
    """Return the dense model's own answers, with their images."""
    return Disk(setting.trained_rows * setting.rows.row_bytes)
