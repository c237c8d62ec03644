"""Windows: short runs of rows that are read and measured together, batch by batch.

How rows fall into windows depends on the files alone, never on the number of processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from interlace.samples.parquet import readable
from interlace.system.resumable import intact, keep_json, kept

ROWS = 64  # of a window: enough for full batches, few enough to share out evenly

Arrays = Mapping[str, NDArray[Any]]


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
        """The name of the folder for its measurements."""
        return f"window-{self.number:06d}"


def windows_of(folders: Sequence[Path]) -> list[Window]:
    """Split the rows of folders that `sample` wrote into windows; only the files' ends are read."""
    windows: list[Window] = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.parquet"))):
        with readable(str(path)):
            metadata = pq.ParquetFile(path).metadata
        for group in range(metadata.num_row_groups):
            total = metadata.row_group(group).num_rows
            for begin in range(0, total, ROWS):
                count = min(ROWS, total - begin)
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


@dataclass(frozen=True)
class WindowBatches:
    """The batches of a window.

    Attributes:
        batches: row numbers of each batch.
        skipped: by row number, the reason why a row is in no batch.
    """

    batches: Sequence[Sequence[int]]
    skipped: Mapping[int, str]


def read_batches(folder: Path) -> WindowBatches | None:
    """Read the batches of a window; `None` if its rows are not encoded yet."""
    if not intact(folder / "batches.json"):
        return None
    fields = json.loads((folder / "batches.json").read_text(encoding="utf-8"))
    skipped = {int(row): reason for row, reason in fields["skipped"].items()}
    return WindowBatches(fields["batches"], skipped)


def write_batches(folder: Path, batches: WindowBatches) -> None:
    """Write the batches of a window."""
    skipped = {str(row): reason for row, reason in batches.skipped.items()}
    keep_json(folder / "batches.json", {"batches": batches.batches, "skipped": skipped})


def _file(folder: Path, batch: int) -> Path:
    return folder / f"batch-{batch:04d}.safetensors"


def write_batch(folder: Path, batch: int, arrays: Arrays) -> None:
    """Write the measurements of one batch."""
    with kept(_file(folder, batch)) as partial:
        save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, partial)


def pending_batches(folder: Path, batches: WindowBatches) -> list[int]:
    """Return the batches that are not measured yet."""
    return [n for n in range(len(batches.batches)) if not intact(_file(folder, n))]


def is_complete(folder: Path) -> bool:
    """Return True if all batches of a window are measured."""
    batches = read_batches(folder)
    return batches is not None and not pending_batches(folder, batches)


def read_measurements(folder: Path, batches: WindowBatches) -> list[Arrays]:
    """Read the measurements of all batches of a window."""
    return [load_file(_file(folder, n)) for n in range(len(batches.batches))]
