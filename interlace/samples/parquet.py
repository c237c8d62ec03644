"""Read Parquet files from outside: what Arrow raises on damaged ones becomes one line."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from interlace.errors import InputError

# Thrift and codecs raise OSError, text that is not UTF-8 UnicodeDecodeError, absurd sizes
# MemoryError or OverflowError, all others ArrowException
ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError, OverflowError)
_FEW = 32  # rows that are Python objects at a time


@contextmanager
def readable(where: str, *, disk: bool = True, passing: Collection[int] = ()) -> Iterator[None]:
    """Turn what Arrow raises while it reads a file into one line.

    Args:
        where: the file, or the file and its row group.
        disk: false for a file that is read over a network, whose OSErrors may pass.
        passing: error numbers of the system that may pass.

    Raises:
        InputError: the file is damaged, or cannot be read; names `where`.
        OSError: one that may pass.
    """
    try:
        yield
    except ERRORS as error:
        if isinstance(error, OSError) and (not disk or error.errno in passing):
            raise
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise InputError(
            f"{where}: not a readable Parquet file: {reason}; write or download it again"
        ) from None


def read_schema(path: Path) -> pa.Schema:
    """Read the schema of a file.

    Raises:
        InputError: see `readable`.
    """
    check_footers([path])
    with readable(str(path)):
        return pq.read_schema(path)


def check_footers(paths: Sequence[Path]) -> None:
    """Read the ends of files in a process of its own: over some damaged ones pyarrow aborts it.

    Raises:
        InputError: names the file.
    """
    if not paths:
        return
    read_end, write_end = os.pipe()
    if not (child := os.fork()):
        _read_footers(paths, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        begun = len(pipe.read())
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        raise InputError(
            f"{paths[max(0, begun - 1)]}: not a readable Parquet file: pyarrow ends by"
            f" {signal.Signals(number).name} over its footer; write or download it again"
        )


def _read_footers(paths: Sequence[Path], pipe: int) -> NoReturn:
    """Read the ends of files, a byte into the pipe before each; end the process."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        for path in paths:
            os.write(pipe, b".")
            with suppress(Exception):  # the process itself reads it next, and says what is wrong
                metadata = pq.read_metadata(path)
                for number in range(metadata.num_row_groups):
                    group = metadata.row_group(number)
                    for column in range(group.num_columns):
                        group.column(column)
    finally:
        os._exit(0)


def row_count(path: Path) -> int:
    """Count the rows of a file, from its end alone.

    Raises:
        InputError: see `readable`.
    """
    with readable(str(path)):
        return int(pq.read_metadata(path).num_rows)


def file_tables(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Iterate over the rows of a file, a few at a time, in one row group after another.

    Args:
        path: the file.
        columns: to read, dotted below the top level; `None`: all.

    Raises:
        InputError: see `readable`.
    """
    with readable(str(path)):
        parquet = pq.ParquetFile(path)
    with parquet:
        batches = parquet.iter_batches(_FEW, columns=columns, use_threads=False)
        rows = 0
        while True:
            with readable(f"{path}, row group {_group_of(parquet.metadata, rows)}"):
                batch = next(batches, None)
                if batch is None:
                    return
                table = pa.Table.from_batches([batch])
            yield table
            rows += table.num_rows


def file_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Iterate over the rows of a file as Python values, with their numbers.

    Raises:
        InputError: see `readable`; text that is not UTF-8 counts as damaged.
    """
    number = 0
    for table in file_tables(path, columns):
        with readable(f"{path}, rows {number} to {number + table.num_rows - 1}"):
            rows = table.to_pylist()
        yield from enumerate(rows, number)
        number += len(rows)


def _group_of(metadata: pq.FileMetaData, row: int) -> int:
    """Return the number of the row group that holds a row."""
    ends = accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    return next((group for group, end in enumerate(ends) if row < end), metadata.num_row_groups)
