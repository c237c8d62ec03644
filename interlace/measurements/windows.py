"""The rows to measure, in windows: short runs of rows that are read and measured on their own.

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

from interlace.outputs import whole, write_json

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


Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Batches:
    """How a window's rows are batched.

    Attributes:
        batches: row numbers of each batch.
        left_out: why a row is in none, by its number.
    """

    batches: Sequence[Sequence[int]]
    left_out: Mapping[int, str]


def read_batches(folder: Path) -> Batches | None:
    """The plan of a window, if it was made."""
    try:
        said = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Batches(said["batches"], {int(row): why for row, why in said["left_out"].items()})


def write_batches(folder: Path, plan: Batches) -> None:
    """Keep the plan of a window."""
    left_out = {str(row): why for row, why in plan.left_out.items()}
    write_json(folder / "plan.json", {"batches": plan.batches, "left_out": left_out})


def _file(folder: Path, batch: int) -> Path:
    return folder / f"batch-{batch:04d}.safetensors"


def write_batch(folder: Path, batch: int, measured: Arrays) -> None:
    """Keep what was measured on a batch."""
    with whole(_file(folder, batch)) as partial:
        save_file({name: np.ascontiguousarray(value) for name, value in measured.items()}, partial)


def batches_left(folder: Path, plan: Batches) -> list[int]:
    """Batches that are still to be measured."""
    return [n for n in range(len(plan.batches)) if not _file(folder, n).is_file()]


def is_measured(folder: Path) -> bool:
    """Whether nothing is left to do for a window."""
    plan = read_batches(folder)
    return plan is not None and not batches_left(folder, plan)


def read_measured(folder: Path, plan: Batches) -> list[Arrays]:
    """What was measured on each batch of a window."""
    return [load_file(_file(folder, n)) for n in range(len(plan.batches))]
