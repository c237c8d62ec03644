"""The subsets of a data set: which files they are made of, and how many rows these hold.

A subset is a folder of Parquet files, as on the hub, or a file that lies in none.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from interlace.data.convert import converter
from interlace.data.files import DataFile, data_files
from interlace.errors import InputError
from interlace.outputs import write_json
from interlace.params.inputs import Data
from interlace.samples.rows import check_schema
from interlace.sources.hub import hub_errors
from interlace.sources.pinned import Pinned

_SHARD = re.compile(r"(-\d+-of-\d+)?\.parquet$")
_OTHER_SPLITS = re.compile(r"(^|/)(test|val|valid|validation|dev)(/|[-.]|_\d)")


@dataclass(frozen=True)
class Subset:
    """Files that are drawn from together, in the order of their names."""

    name: str
    files: tuple[DataFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class RowGroup:
    """A row group: its file (position in the subset), its number there, its rows and bytes."""

    file: int
    number: int
    rows: int
    size: int


@dataclass(frozen=True)
class Outline:
    """The row groups of a subset, and the bytes that it took to find out."""

    groups: tuple[RowGroup, ...]
    bytes_read: int


class CountedFile:
    """A file that counts the bytes read from it; what pyarrow asks of a file, and no more."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes_read = 0
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        """Read exactly `size` bytes, fewer at the end of the file."""
        parts: list[bytes] = []
        left = size
        while left and (part := self._file.read(left)):  # an unbuffered file may give less
            parts.append(part)
            left -= len(part) if left > 0 else 0
        found = parts[0] if len(parts) == 1 else b"".join(parts)
        self.bytes_read += len(found)
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place in the file."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self.closed = True
        self._file.close()

    def readable(self) -> bool:
        """Always."""
        return True

    def writable(self) -> bool:
        """Never."""
        return False

    def seekable(self) -> bool:
        """Always."""
        return True


def subsets_of(files: Iterable[DataFile]) -> list[Subset]:
    """Gather files into subsets, by name.

    Files of a test or validation split are left alone where the data set has others.
    """
    listed = sorted(files, key=lambda file: file.name)
    training = [file for file in listed if not _OTHER_SPLITS.search(file.name)]
    found: dict[str, list[DataFile]] = {}
    for file in training or listed:
        folder, _, name = file.name.partition("/")
        found.setdefault(folder if name else _SHARD.sub("", file.name), []).append(file)
    return [Subset(name, tuple(members)) for name, members in sorted(found.items())]


def selected_subsets(files: Iterable[DataFile], data: Data) -> list[Subset]:
    """The subsets that the parameters ask for.

    Raises:
        InputError: a subset is named that the data set does not have.
    """
    found = {subset.name: subset for subset in subsets_of(files)}
    for field, names in (("subsets", data.subsets), ("weights", tuple(data.weights))):
        for name in names:
            if name not in found:
                close = difflib.get_close_matches(name, found, 1)
                some = ", ".join(list(found)[:8]) + (", ..." if len(found) > 8 else "")
                way = f"did you mean {close[0]}?" if close else f"there are {some}"
                raise InputError(f"data.{field}: {data.id} has no subset {name!r}; {way}")
    return [found[name] for name in sorted(data.subsets or found)]


def check_subsets(pinned: Pinned, data: Data, *, checked: Path) -> None:
    """Check the subsets and columns of a pinned data set before any long work.

    All files of a local data set are looked at, and the first of every subset on the hub.

    Args:
        pinned: what `pin_data` returned.
        data: which subsets.
        checked: file that remembers the digests of files that were in order.

    Raises:
        InputError: names the subset, or the file and the column.
    """
    files = data_files(pinned)
    subsets = selected_subsets(files, data)
    local = "files" in pinned
    known = _remembered(checked)
    asked = [file for subset in subsets for file in subset.files[: None if local else 1]]
    unknown = [file for file in asked if file.digest not in known]
    errors = nullcontext() if local else hub_errors("data.id", pinned["id"], pinned["revision"])
    with errors, ThreadPoolExecutor(data.workers) as pool:
        list(pool.map(_check, unknown))
    if unknown:
        write_json(checked, sorted(known | {file.digest for file in unknown}))


def _remembered(path: Path) -> set[str]:
    try:
        return set(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return set()


def _check(file: DataFile) -> None:
    with closing(CountedFile(file.open())) as stream, open_parquet(file, stream):
        pass


def open_parquet(file: DataFile, stream: CountedFile) -> pq.ParquetFile:
    """Open a file in FineVision's schema, or one that can be converted to it.

    Raises:
        InputError: it is no Parquet file, or has other columns.
    """
    try:
        parquet = pq.ParquetFile(stream, pre_buffer=True)
    except pa.ArrowInvalid as error:
        said = " ".join(str(error).split())
        raise InputError(f"{file.place}: not a readable Parquet file: {said}") from None
    if converter(parquet.schema_arrow) is None:
        check_schema(parquet.schema_arrow, file.place)
    return parquet


def outline(subset: Subset, cache: Path) -> Outline:
    """Read the footers of a subset's files, or what is remembered of them.

    Args:
        subset: whose row groups to list.
        cache: folder of remembered outlines, by the digests of the files.

    Raises:
        InputError: as `open_parquet`.
    """
    said = repr([(file.name, file.digest) for file in subset.files])
    path = cache / f"{hashlib.sha256(said.encode()).hexdigest()[:24]}.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return Outline(tuple(RowGroup(*item) for item in known["groups"]), known["bytes_read"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    groups: list[RowGroup] = []
    bytes_read = 0
    for place, file in enumerate(subset.files):
        with closing(CountedFile(file.open())) as stream, open_parquet(file, stream) as parquet:
            groups += _groups(place, parquet.metadata)
        bytes_read += stream.bytes_read
    found = Outline(tuple(groups), bytes_read)
    rows = [list(asdict(group).values()) for group in groups]
    write_json(path, {"groups": rows, "bytes_read": bytes_read})
    return found


def _groups(file: int, metadata: pq.FileMetaData) -> Sequence[RowGroup]:
    def size(group: pq.RowGroupMetaData) -> int:
        return sum(group.column(i).total_compressed_size for i in range(group.num_columns))

    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    return [RowGroup(file, n, group.num_rows, size(group)) for n, group in enumerate(groups)]
