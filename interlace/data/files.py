"""The Parquet files of a data set, local or on the hub: list them, open one."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from interlace.data.convert import converter
from interlace.errors import InputError
from interlace.samples.parquet import readable
from interlace.samples.rows import check_schema
from interlace.sources.files import is_data
from interlace.sources.hub import hub_errors
from interlace.sources.pinned import PinnedData

PASSING = (errno.EIO, errno.ESTALE)  # errors of a local file that may be on a network disk


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a pinned data set; bytes are fetched when they are read.

    Attributes:
        name: path below the data set's root, with forward slashes.
        location: path or address, for messages.
        size: bytes.
        digest: changes when the contents do.
        open: opens it for reading, unbuffered: only the bytes asked for are read.
        local: true for a file on this machine, or on a disk that looks like it.
    """

    name: str
    location: str
    size: int
    digest: str
    open: Callable[[], BinaryIO]
    local: bool = False


class CountedFile(io.RawIOBase):
    """A file that counts the bytes read from it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.bytes_read = 0

    def readable(self) -> bool:
        """Allow reads."""
        return True

    def seekable(self) -> bool:
        """Allow seeks."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read exactly `size` bytes, fewer at the end of the file."""
        pieces: list[bytes] = []
        missing = size
        while missing and (piece := self._file.read(missing)):  # unbuffered files may return less
            pieces.append(piece)
            missing -= len(piece) if missing > 0 else 0
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.bytes_read += len(content)
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to an offset in bytes."""
        return self._file.seek(offset, whence)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


@contextmanager
def open_parquet(file: DataFile) -> Iterator[tuple[pq.ParquetFile, CountedFile]]:
    """Open a file in FineVision's schema, or one that can be converted to it.

    Raises:
        InputError: it is no Parquet file, or has other columns.
    """
    with closing(CountedFile(file.open())) as stream:
        with readable(file.location, disk=file.local, passing=PASSING):
            parquet = pq.ParquetFile(stream, pre_buffer=True)
            schema = parquet.schema_arrow
        if converter(schema, file.location) is None:
            check_schema(schema, file.location, optional=("source",))
        with parquet:
            yield parquet, stream


def data_files(pinned: PinnedData, field: str = "data.id") -> list[DataFile]:
    """List the Parquet files of a pinned data set, by name.

    Args:
        pinned: as `pin_data` returns it.
        field: the parameter that names the data set, for messages.

    Raises:
        InputError: the hub cannot be reached, or the repository holds no Parquet file.
    """
    if pinned.files is not None:
        path = Path(pinned.id)
        root = path.parent if path.is_file() else path
        return [
            DataFile(name, str(root / name), facts.size, facts.sha256,
                     partial(_opened, root / name), local=True)
            for name, facts in sorted(pinned.files.items())
        ]  # fmt: skip
    from huggingface_hub import HfFileSystem

    hub, source, revision = HfFileSystem(), pinned.id, pinned.revision
    root_name = f"datasets/{source}@{revision}"
    with hub_errors(field, source, revision):
        listing: Any = hub.find(root_name, detail=True)
    files = [
        DataFile(name.removeprefix(f"{root_name}/"), name.removeprefix("datasets/"), info["size"],
                 info["blob_id"], partial(hub.open, name, "rb", cache_type="none"))
        for name, info in sorted(listing.items())
        if is_data(name.removeprefix(f"{root_name}/"))
    ]  # fmt: skip
    if not files:
        raise InputError(f"{field} = {source}: no .parquet file in this repository")
    return files


def _opened(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)
