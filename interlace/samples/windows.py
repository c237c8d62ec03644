"""Windows: short runs of rows that are read together, and dealt out to processes.

How rows fall into windows depends on the files alone, never on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from interlace.samples.parquet import readable

ROWS = 64  # of a window: enough for full batches, few enough to share out evenly


@dataclass(frozen=True)
class Window:
    """Consecutive rows of a row group of a Parquet file.

    Attributes:
        number: of the window, from 0.
        path: the file.
        group: the row group.
        begin: the first row, counted within the group.
        rows: number of rows.
    """

    number: int
    path: Path
    group: int
    begin: int
    rows: int

    @property
    def name(self) -> str:
        """The name of the file or folder for what becomes of its rows."""
        return f"window-{self.number:06d}"


def windows_of(folders: Sequence[Path], rows: int | None = None) -> list[Window]:
    """Split the rows of folders that `sample` wrote into windows; only the files' ends are read.

    Args:
        folders: of Parquet files.
        rows: most rows of a window; `None`: `ROWS`.
    """
    size = rows or ROWS
    windows: list[Window] = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.parquet"))):
        with readable(str(path)):
            metadata = pq.ParquetFile(path).metadata
        for group in range(metadata.num_row_groups):
            total = metadata.row_group(group).num_rows
            for begin in range(0, total, size):
                count = min(size, total - begin)
                windows.append(Window(len(windows), path, group, begin, count))
    return windows


def read_windows(
    windows: Sequence[Window], columns: Sequence[str] | None = None
) -> Iterator[tuple[Window, list[dict[str, Any]]]]:
    """Read windows one after another; at most one row group is in memory.

    Args:
        windows: all or some of `windows_of`, in its order.
        columns: of the rows; `None`: all.

    Yields:
        Window, and its rows.
    """
    for (path, group), together in groupby(windows, lambda window: (window.path, window.group)):
        with readable(f"{path}, row group {group}"):
            table = pq.ParquetFile(path).read_row_group(group, columns=columns)
        for window in together:
            yield window, table.slice(window.begin, window.rows).to_pylist()
