"""The rows to measure, in windows: short runs of rows that are read and measured on their own.

How rows fall into windows depends on the files alone, never on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROWS = 64  # of a window: enough for full batches, few enough to share out evenly


@dataclass(frozen=True)
class Window:
    """Rows that lie one after another in a row group of a Parquet file.

    Attributes:
        number: of the window, from 0.
        path: the file.
        group: the row group.
        begin: the first row, counted within the group.
        rows: how many.
    """

    number: int
    path: Path
    group: int
    begin: int
    rows: int

    @property
    def name(self) -> str:
        """Of the folder of what was measured on it."""
        return f"window-{self.number:06d}"


def windows_of(folders: Sequence[Path]) -> list[Window]:
    """All rows of folders that `sample` wrote, in order; only the files' ends are read."""
    found: list[Window] = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.parquet"))):
        metadata = pq.ParquetFile(path).metadata
        for group in range(metadata.num_row_groups):
            total = metadata.row_group(group).num_rows
            for begin in range(0, total, ROWS):
                count = min(ROWS, total - begin)
                found.append(Window(len(found), path, group, begin, count))
    return found


def read(
    windows: Sequence[Window], columns: Sequence[str] | None = None
) -> Iterator[tuple[Window, list[dict[str, Any]]]]:
    """Every window with its rows; at most one row group is in memory.

    Args:
        windows: in the order of `windows_of`; any may be missing.
        columns: of the rows; none: all.
    """
    for (path, group), together in groupby(windows, lambda window: (window.path, window.group)):
        table = pq.ParquetFile(path).read_row_group(group, columns=columns)
        for window in together:
            yield window, table.slice(window.begin, window.rows).to_pylist()
