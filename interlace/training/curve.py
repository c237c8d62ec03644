"""The curve of a training as CSV, written while it runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from interlace.params.healing import Recipe
from interlace.system import distributed
from interlace.system.outputs import whole
from interlace.system.rounding import numbers_rounded
from interlace.training.reports import Report, open_reports
from interlace.training.resume import Update


class Curve:
    """A curve on disk: a row for the first update, each `log_steps`-th one and the last.

    The file is replaced as a whole with each new row: a reader never sees half of it. It holds all
    updates of a resumed run, each once. Numbers are rounded. The first process alone writes.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        *,
        steps: int,
        params: Recipe,
        averaged: Sequence[str] = (),
        logs: Path | None = None,
    ) -> None:
        """Take what to write; nothing is written yet.

        Args:
            path: the CSV file.
            columns: `step`, `learning_rate`, `tokens` and names of `Update.values`, in order.
            steps: updates of the whole training.
            params: the updates between rows, and the libraries that get each row, too.
            averaged: columns that hold the mean since the row before, not the update's own value.
            logs: folder for these libraries; `None`: they get nothing.
        """
        self.path, self.steps, self.params, self.averaged = path, steps, params, averaged
        self.logs = logs and logs / path.stem
        self._text = io.StringIO(newline="")
        self._writer = csv.DictWriter(self._text, columns)
        self._writer.writeheader()
        self._updates = 0
        self._pending: list[Update] = []
        self._reports: list[Report] | None = None

    def write(self, updates: Sequence[Update]) -> None:
        """Write the rows of new updates; the first time, write the file even without any.

        Args:
            updates: all so far, in order.
        """
        if distributed.process_rank() > 0:
            return
        if self._reports is None:
            self._reports = open_reports(self.params.report_to, self.logs) if self.logs else []
            self._replace()
        rows = [row for update in updates[self._updates :] if (row := self._row(update))]
        self._updates = len(updates)
        if rows:
            self._writer.writerows(rows)
            self._replace()
        for report in self._reports:
            for row in rows:
                report.add(row)
            if rows and len(updates) == self.steps:
                report.close()

    def _row(self, update: Update) -> dict[str, float]:
        """Return the row that an update ends; empty for one between rows."""
        self._pending.append(update)
        if update.step not in (1, self.steps) and update.step % self.params.log_steps:
            return {}
        pending, self._pending = self._pending, []
        means = {n: sum(u.values[n] for u in pending) / len(pending) for n in self.averaged}
        values = update.model_dump(exclude={"values"}) | update.values | means
        return numbers_rounded({name: values[name] for name in self._writer.fieldnames})

    def _replace(self) -> None:
        with whole(self.path) as partial:
            partial.write_text(self._text.getvalue(), encoding="utf-8", newline="")
