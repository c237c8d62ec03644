"""The curve of a training as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from interlace.system.outputs import whole
from interlace.training.resume import Update


def write_curve(
    path: Path,
    updates: Sequence[Update],
    columns: Sequence[str],
    *,
    log_steps: int = 1,
    averaged: Sequence[str] = (),
) -> None:
    """Write a row for the first update, each `log_steps`-th one and the last.

    Args:
        path: the file.
        updates: all updates, in order.
        columns: `step`, `learning_rate`, `tokens` and names of `Update.values`, in order.
        log_steps: updates between rows.
        averaged: columns that hold the mean since the row before, not the update's own value.
    """
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        pending: list[Update] = []
        for update in updates:
            pending.append(update)
            if update.step in (1, len(updates)) or update.step % log_steps == 0:
                means = {
                    name: sum(recent.values[name] for recent in pending) / len(pending)
                    for name in averaged
                }
                writer.writerow(update.model_dump(exclude={"values"}) | update.values | means)
                pending = []
