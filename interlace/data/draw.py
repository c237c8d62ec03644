"""Rows of subsets, drawn side by side, cleaned, and kept in chunks on disk until all are there.

A run that was interrupted finds its chunks and goes on. Memory holds one row group per worker, and
the image that each is decoding.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from interlace.data.cleaning import Counts, clean_row
from interlace.data.convert import converter
from interlace.data.files import DataFile
from interlace.data.row_groups import rows_in_group, rows_per_group, rows_to_draw
from interlace.data.subsets import CountedFile, Outline, RowGroup, Subset, open_parquet, outline
from interlace.errors import InputError
from interlace.outputs import whole, write_json
from interlace.params.inputs import Data
from interlace.samples.order import shuffle_key
from interlace.samples.rows import SCHEMA, sample_id, write_rows

WAITS = (2.0, 8.0, 30.0)  # before a subset is tried again, seconds
_PASSING = (errno.EIO, errno.ESTALE)  # of a local file; it may be on a disk behind a network
_CHUNK_BYTES = 2**26  # Parquet bytes to read between two resume points
_FEW = 32  # rows that are Python objects at a time


def draw_subsets(
    subsets: Sequence[Subset], data: Data, seed: int, scratch: Path, outlines: Path
) -> dict[str, Path]:
    """Draw from every subset; what a folder holds already is not drawn again.

    Args:
        subsets: to draw from.
        data: what to draw.
        seed: of the draw.
        scratch: folder of unfinished work.
        outlines: folder that remembers the row groups of subsets.

    Returns:
        By subset, in their order, the folder with `subset.json` and its chunks; see `chunks`.

    Raises:
        InputError: the first subset that cannot be read, or is not what it should be.
    """
    stop = threading.Event()
    with tqdm(total=len(subsets), unit="subset", desc="sample") as bar:
        work = {
            subset.name: _Work(subset, data, seed, scratch / quote(subset.name, ""), stop, bar)
            for subset in subsets
        }
        largest_first = sorted(work.values(), key=lambda one: -one.subset.size)
        with ThreadPoolExecutor(data.workers) as pool:
            futures = [pool.submit(one.run, outlines) for one in largest_first]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)
        for future in futures:
            error = None if future.cancelled() else future.exception()
            if error is not None and not isinstance(error, _Stopped):
                raise error
    return {name: one.folder for name, one in work.items()}


class _Stopped(Exception):
    """Another subset failed."""


@dataclass
class _Work:
    """One subset to draw from."""

    subset: Subset
    data: Data
    seed: int
    folder: Path
    stop: threading.Event
    bar: Any

    def run(self, outlines: Path) -> None:
        """Draw, and try again for a while when reading fails and may not the next time."""
        local = all(file.local for file in self.subset.files)
        for pause in (*WAITS, None):
            try:
                self._draw(outline(self.subset, outlines))
                self.bar.update()
                return
            except Exception as error:
                if not _is_of_reading(error):
                    raise
                if local and getattr(error, "errno", None) not in _PASSING:
                    raise self._failed(error, "repair it and run the stage again") from None
                if pause is None:
                    tried = f"tried {len(WAITS) + 1} times; run the stage again"
                    raise self._failed(error, tried) from None
                if self.stop.wait(pause):
                    raise _Stopped from None

    def _failed(self, error: Exception, way: str) -> InputError:
        said = str(error).strip().splitlines() or [""]
        return InputError(
            f"subset {self.subset.name}: cannot be read ({type(error).__name__}: {said[0]}); {way}"
            " to go on from here, what was drawn is kept"
        )

    def _draw(self, found: Outline) -> None:
        name, data = self.subset.name, self.data
        sizes = [group.rows for group in found.groups]
        wanted = rows_to_draw(sum(sizes), min(1.0, data.share * data.weights.get(name, 1.0)))
        start = int.from_bytes(shuffle_key(self.seed, "start", name)[:8])
        taken = rows_per_group(sizes, wanted, share=data.group_share, start=start)
        chosen = [(found.groups[i], take) for i, take in sorted(taken.items())]
        for number, chunk in enumerate(_chunks(chosen)):
            folder = self.folder / f"{number:05}"
            if not folder.is_dir():
                self._draw_chunk(chunk, folder)
        summary = {"holds": sum(sizes), "drawn": wanted, "bytes_read": found.bytes_read}
        write_json(self.folder / "subset.json", summary)

    def _draw_chunk(self, chunk: Sequence[tuple[RowGroup, int]], folder: Path) -> None:
        counts, read = Counts(), 0

        def rows() -> Iterator[dict[str, Any]]:
            nonlocal read
            for place, groups in groupby(chunk, key=lambda item: item[0].file):
                file = self.subset.files[place]
                with (
                    closing(CountedFile(file.open())) as stream,
                    open_parquet(file, stream) as parquet,
                ):
                    for group, take in groups:
                        if self.stop.is_set():
                            raise _Stopped
                        yield from self._rows(parquet, file, group, take, counts)
                read += stream.bytes_read

        with whole(folder) as partial:
            partial.mkdir()
            ids = write_rows(rows(), partial / "rows")
            kept = sum(path.stat().st_size for path in (partial / "rows").iterdir())
            write_json(
                partial / "counts.json",
                {
                    "kept": len(ids),
                    "bytes_read": read,
                    "left_out": counts.left_out,
                    "odd": counts.odd,
                },
            )
        _show_bytes(self.bar, read, kept)

    def _rows(
        self, parquet: pq.ParquetFile, file: DataFile, group: RowGroup, take: int, counts: Counts
    ) -> Iterator[dict[str, Any]]:
        """The rows that are drawn of one row group, cleaned."""
        convert = converter(parquet.schema_arrow)
        known = convert.columns if convert else SCHEMA.names
        columns = [name for name in known if name in parquet.schema_arrow.names]
        key = ("row", self.subset.name, file.name, group.number)
        numbers = rows_in_group(group.rows, take, self.seed, *key)
        table = parquet.read_row_group(group.number, columns=columns, use_threads=False)
        if len(numbers) < table.num_rows:
            table = table.take(numbers)
        for row in _python_rows(table, counts):
            found = clean_row(convert(row) if convert else row, self.subset.name, self.data, counts)
            if found is not None:
                found |= {"sample_id": sample_id(found), "domain": "native", "task": "native"}
                yield found


def _is_of_reading(error: Exception) -> bool:
    """Whether the network or a file failed."""
    if isinstance(error, OSError | pa.ArrowException):
        return True
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore")


def _chunks(
    chosen: Sequence[tuple[RowGroup, int]],
) -> Iterator[list[tuple[RowGroup, int]]]:
    """Row groups that are read between two resume points."""
    chunk: list[tuple[RowGroup, int]] = []
    size = 0
    for item in chosen:
        if chunk and size + item[0].size > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += item[0].size
    if chunk:
        yield chunk


def _python_rows(table: pa.Table, counts: Counts) -> Iterator[dict[str, Any]]:
    """Rows as Python has them, a few at a time; those with broken text are left out."""
    for begin in range(0, table.num_rows, _FEW):
        few = table.slice(begin, _FEW)
        try:
            yield from few.to_pylist()
        except UnicodeDecodeError:
            for number in range(few.num_rows):
                try:
                    yield from few.slice(number, 1).to_pylist()
                except UnicodeDecodeError:
                    counts.left_out["text that is not UTF-8"] += 1


_shown_lock = threading.Lock()


def _show_bytes(bar: Any, read: int, kept: int) -> None:
    with _shown_lock:
        bar.bytes_read = getattr(bar, "bytes_read", 0) + read
        bar.bytes_kept = getattr(bar, "bytes_kept", 0) + kept
        megabytes = {"read": bar.bytes_read, "kept": bar.bytes_kept}
        bar.set_postfix({name: f"{size / 1e6:.1f} MB" for name, size in megabytes.items()})


def chunks(folder: Path) -> list[Path]:
    """The chunks of a subset: folders with `rows`, as Parquet, and `counts.json`."""
    return sorted(path for path in folder.iterdir() if path.name.isdigit())
