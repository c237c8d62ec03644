"""FineVision rows: their schema, and folders of them.

A row has images (or none), texts (user/assistant turns), a source and ratings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from interlace.errors import InputError
from interlace.params.inputs import RATINGS
from interlace.samples.columns import NUMBER, check_column
from interlace.samples.parquet import file_tables, readable
from interlace.system.outputs import whole

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TURN = pa.struct([("user", pa.string()), ("assistant", pa.string())])
_SOURCE_FIELDS = [("images", pa.list_(IMAGE)), ("texts", pa.list_(TURN)), ("source", pa.string())]
_RATING_FIELDS = [
    item
    for name in RATINGS
    for item in ((f"{name}_ratings", pa.list_(pa.int64())), (f"{name}_min", pa.int64()))
]
_SOURCE_TYPES: dict[str, tuple[pa.DataType, ...]] = {name: (kind,) for name, kind in _SOURCE_FIELDS}
_RATING_VALUES = (NUMBER, pa.string())  # text may hold a number
_RATING_TYPES = {
    name: (*_RATING_VALUES, *(pa.list_(kind) for kind in _RATING_VALUES))
    for name, _ in _RATING_FIELDS
}
_SAMPLE_FIELDS = [("sample_id", pa.string()), ("domain", pa.string()), ("task", pa.string())]
SCHEMA = pa.schema([*_SOURCE_FIELDS, *_RATING_FIELDS, *_SAMPLE_FIELDS])
_ROW_GROUP = 256  # rows, bounds memory while reading and writing
_ROW_GROUP_BYTES = 2**23
_SHARD_BYTES = 2**30
_REPEATED = ["source", "domain", "task"]  # columns worth a dictionary; images are not
_FEW = 32  # rows that are Python objects at a time
T = TypeVar("T")


def check_schema(schema: pa.Schema, where: str, *, optional: Collection[str] = ()) -> None:
    """Check that a Parquet file holds FineVision's columns.

    Args:
        schema: of the file.
        where: the file.
        optional: columns that may be missing.

    Raises:
        InputError: names the file, the column and what it should hold.
    """
    for name, types in _SOURCE_TYPES.items():
        if name in schema.names:
            check_column(schema, name, types, where)
        elif name not in optional:
            raise InputError(
                f"{where}: column {name!r} is missing; FineVision's schema has"
                " images, texts and source"
            )
    for name, types in _RATING_TYPES.items():
        if name in schema.names:
            check_column(schema, name, types, where)


def check_row(row: dict[str, Any], where: str) -> None:
    """Check one row's source and texts.

    Raises:
        InputError: names the row, the column and the fault.
    """
    if not isinstance(row["source"], str) or not row["source"]:
        raise InputError(f"{where}, column 'source': empty; every row needs the name of its source")
    if not row["texts"]:
        raise InputError(f"{where}, column 'texts': no turns; every row needs at least one")
    for turn, text in enumerate(row["texts"]):
        for side in ("user", "assistant"):
            if not text or not isinstance(text.get(side), str) or not text[side].strip():
                raise InputError(f"{where}, column 'texts': turn {turn} has an empty {side} text")


def sample_id(row: dict[str, Any]) -> str:
    """Hash a row's images and texts: 16 hexadecimal digits, the same in any source."""
    digest = hashlib.sha256()
    for image in row["images"] or ():
        digest.update(b"i" + hashlib.sha256(image["bytes"]).digest())
    for text in row["texts"]:
        for side in ("user", "assistant"):
            digest.update(b"t" + hashlib.sha256(text[side].encode()).digest())
    return digest.hexdigest()[:16]


def selected_rows(
    name: str, file: Any, rows: Collection[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read some rows of one file, with their numbers, from their row groups alone."""
    with readable(name):
        parquet = pq.ParquetFile(file)
    begin = 0
    columns = [column for column in SCHEMA.names if column in parquet.schema_arrow.names]
    numbers = set(rows)
    for group in range(parquet.num_row_groups):
        end = begin + parquet.metadata.row_group(group).num_rows
        if any(row in numbers for row in range(begin, end)):
            with readable(f"{name}, row group {group}"):
                values = parquet.read_row_group(group, columns=columns).to_pylist()
            yield from (
                (begin + i, value) for i, value in enumerate(values) if begin + i in numbers
            )
        begin = end


class _Shards:
    """A writer of row groups of bounded size into files of bounded size."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._number = 0
        self._waiting: list[pa.Table] = []
        self._writer = self._next()

    def _next(self) -> pq.ParquetWriter:
        path = self._folder / f"part-{self._number:05}.parquet"
        self._number += 1
        self._file = path.open("wb")
        return pq.ParquetWriter(self._file, self._schema, use_dictionary=_REPEATED)

    def add(self, rows: pa.Table) -> None:
        """Add rows of the schema; they are written once there are enough."""
        self._waiting.append(rows)
        while sum(table.num_rows for table in self._waiting) >= _ROW_GROUP:
            together = pa.concat_tables(self._waiting)
            self._waiting = [together.slice(_ROW_GROUP)]
            self._write(together.slice(0, _ROW_GROUP))
        if sum(table.nbytes for table in self._waiting) >= _ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the waiting rows."""
        if together := pa.concat_tables(self._waiting) if self._waiting else None:
            self._write(together)
        self._waiting = []

    def _write(self, rows: pa.Table) -> None:
        if self._file.tell() >= _SHARD_BYTES:
            self.close()
            self._writer = self._next()
        self._writer.write_table(
            rows.combine_chunks()
        )  # else the bytes depend on how rows were added

    def close(self) -> None:
        """Close the current file."""
        self._writer.close()
        self._file.close()


@contextmanager
def shards(folder: Path, schema: pa.Schema = SCHEMA) -> Iterator[Callable[[pa.Table], None]]:
    """Yield a function that adds rows of a schema to a folder of Parquet.

    The folder appears once it is complete. Row groups hold at most 256 rows and about 8 MiB, files
    about 1 GiB; without rows there is one file without row groups.
    """
    with whole(folder) as partial:
        partial.mkdir()
        writer = _Shards(partial, schema)
        try:
            yield writer.add
            writer.flush()
        finally:
            writer.close()


def write_rows(rows: Iterable[dict[str, Any]], folder: Path) -> list[str]:
    """Write rows to a folder of Parquet; return their ids in order."""
    ids: list[str] = []
    with shards(folder) as add:
        for batch in in_groups(rows, _FEW):
            ids += [row["sample_id"] for row in batch]
            add(pa.Table.from_pylist(batch, schema=SCHEMA))
    return ids


def in_groups(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Group rows in lists of `size`, the last one shorter."""
    rows = iter(rows)
    while group := list(islice(rows, size)):
        yield group


def iterate(folder: Path) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of a folder that `sample` wrote."""
    for table in iterate_tables(folder):
        yield from table.to_pylist()


def iterate_tables(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Iterate over the rows of a folder of Parquet, a few at a time.

    Args:
        folder: that `sample` wrote.
        columns: to read, dotted below the top level; `None`: all.
    """
    for path in sorted(folder.glob("*.parquet")):
        yield from file_tables(path, columns)


def lowest_ids(folder: Path, n: int) -> set[str]:
    """Return the lowest ids of native rows; as good as random, since ids are hashes of content.

    Args:
        folder: that `sample` wrote.
        n: number of rows; all, if there are fewer.
    """
    tables = iterate_tables(folder, ["sample_id", "domain"])
    rows = (row for table in tables for row in table.to_pylist())
    return set(sorted(row["sample_id"] for row in rows if row["domain"] == "native")[:n])


def schema_of(folder: Path) -> pa.Schema:
    """Return the schema of a folder's rows; `SCHEMA` where it has no file."""
    path = min(folder.glob("*.parquet"), default=None)
    if path is None:
        return SCHEMA
    with readable(str(path)):
        return pq.read_schema(path)
