"""Row groups of a subset, from the footers of its files; remembered on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from interlace.data.files import open_parquet
from interlace.data.subsets import Subset
from interlace.system.resumable import intact, keep_json


@dataclass(frozen=True)
class RowGroup:
    """A row group of a subset.

    Attributes:
        file: position of its file in the subset.
        number: position in the file.
        rows: that it holds.
        size: compressed bytes.
    """

    file: int
    number: int
    rows: int
    size: int


@dataclass(frozen=True)
class Outline:
    """All row groups of a subset, and the bytes that were read to list them."""

    groups: tuple[RowGroup, ...]
    bytes_read: int


def outline(subset: Subset, cache: Path) -> Outline:
    """List the row groups of a subset from the cache, or from the footers of its files.

    Args:
        subset: whose row groups to list.
        cache: folder of remembered outlines, by the digests of the files.

    Raises:
        InputError: as `open_parquet`.
    """
    key = repr([(file.name, file.digest) for file in subset.files])
    path = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    if intact(path):
        return _read_outline(path)
    groups: list[RowGroup] = []
    bytes_read = 0
    for number, file in enumerate(subset.files):
        with open_parquet(file) as (parquet, stream):
            groups += _row_groups(number, parquet.metadata)
        bytes_read += stream.bytes_read
    keep_json(path, {"groups": [astuple(group) for group in groups], "bytes_read": bytes_read})
    return Outline(tuple(groups), bytes_read)


def _read_outline(path: Path) -> Outline:
    content = json.loads(path.read_text(encoding="utf-8"))
    return Outline(tuple(RowGroup(*values) for values in content["groups"]), content["bytes_read"])


def _row_groups(file: int, metadata: pq.FileMetaData) -> Iterator[RowGroup]:
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        size = sum(group.column(i).total_compressed_size for i in range(group.num_columns))
        yield RowGroup(file, number, group.num_rows, size)
