"""Draw rows from subsets in parallel, clean them, and keep them in chunks on disk.

An interrupted run resumes from its chunks. Memory holds one row group per worker, and the image
that each is decoding.
"""

from __future__ import annotations

import hashlib
import json
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
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
from interlace.data.files import PASSING, DataFile, open_parquet
from interlace.data.row_groups import Outline, RowGroup, outline
from interlace.data.subsets import Subset
from interlace.data.systematic import rows_in_group, rows_per_group, rows_to_draw
from interlace.errors import InputError
from interlace.params.inputs import Data
from interlace.samples.columns import plain_table
from interlace.samples.order import shuffle_key
from interlace.samples.parquet import ERRORS as PARQUET_ERRORS
from interlace.samples.rows import SCHEMA, sample_id, write_rows
from interlace.system.outputs import write_json
from interlace.system.resumable import intact, kept
from interlace.system.slow import slow_named

WAITS = (2.0, 8.0, 30.0)  # before a subset is tried again, seconds
_CHUNK_BYTES = 2**26  # Parquet bytes to read between two resume points
_LONGEST_NAME = 120  # bytes of a folder's name; file systems hold 255, some less
_FEW = 32  # rows that are Python objects at a time
_SKIP = "wait, or set data.max_image_pixels lower to skip images of its size"


@dataclass(frozen=True)
class Chunk:
    """Rows between two resume points.

    Attributes:
        rows: folder of Parquet.
        count: rows that were kept.
        bytes_read: Parquet bytes.
        left_out: rows that were not kept, by the reason.
        odd: rows that were kept, by what was odd about them.
    """

    rows: Path
    count: int
    bytes_read: int
    left_out: Counter[str]
    odd: Counter[str]


@dataclass(frozen=True)
class DrawnSubset:
    """Rows drawn from a subset.

    Attributes:
        holds: rows of the subset.
        draws: rows that were drawn from it.
        outline_bytes: read from footers.
        chunks: in order.
    """

    holds: int
    draws: int
    outline_bytes: int
    chunks: tuple[Chunk, ...]


def draw_subsets(
    subsets: Sequence[Subset], data: Data, seed: int, scratch: Path, outlines: Path
) -> dict[str, DrawnSubset]:
    """Draw from every subset; chunks that lie in `scratch` are not drawn again.

    Args:
        subsets: to draw from.
        data: shares, weights and what to skip.
        seed: of the draw.
        scratch: folder of unfinished work.
        outlines: folder that remembers the row groups of subsets.

    Returns:
        The drawn rows by subset, in the order of `subsets`.

    Raises:
        InputError: the first subset that cannot be read, or breaks the schema.
    """
    stop = threading.Event()
    with tqdm(total=len(subsets), unit="subset", desc="sample") as bar:
        draws = {
            subset.name: _SubsetDraw(
                subset, data, seed, scratch / _folder_name(subset.name), stop, bar
            )
            for subset in subsets
        }
        largest_first = sorted(draws.values(), key=lambda draw: -draw.subset.size)
        with ThreadPoolExecutor(data.workers) as pool:
            futures = [pool.submit(draw.run, outlines) for draw in largest_first]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)
        for future in futures:
            error = None if future.cancelled() else future.exception()
            if error is not None and not isinstance(error, _Stopped):
                raise error
    return {name: _read_subset(draw.folder) for name, draw in draws.items()}


def _folder_name(subset: str) -> str:
    """Return a folder's name for a subset; a long one, by bytes, ends in a hash of the whole."""
    name = quote(subset, "")
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(subset.encode()).hexdigest()[:16]}"


def _read_subset(folder: Path) -> DrawnSubset:
    """Read what a finished draw wrote: `subset.json`, and per chunk `counts.json` and `rows`."""
    chunks = []
    for path in sorted(path for path in folder.iterdir() if path.name.isdigit()):
        counts = json.loads((path / "counts.json").read_text(encoding="utf-8"))
        left_out, odd = Counter(counts.pop("left_out")), Counter(counts.pop("odd"))
        chunks.append(Chunk(path / "rows", **counts, left_out=left_out, odd=odd))
    facts = json.loads((folder / "subset.json").read_text(encoding="utf-8"))
    return DrawnSubset(**facts, chunks=tuple(chunks))


class _Stopped(Exception):
    """Another subset failed."""


@dataclass
class _SubsetDraw:
    """The draw from one subset."""

    subset: Subset
    data: Data
    seed: int
    folder: Path
    stop: threading.Event
    bar: Any
    location: str = "its files"  # file and row group that are read

    def run(self, outlines: Path) -> None:
        """Draw; try again for a while if reading fails and may succeed later."""
        local = all(file.local for file in self.subset.files)
        for pause in (*WAITS, None):
            try:
                self._draw(outline(self.subset, outlines))
                self.bar.update()
                return
            except Exception as error:
                if not _is_of_reading(error):
                    raise
                if local and getattr(error, "errno", None) not in PASSING:
                    raise self._failed(error, "repair it and run the stage again") from None
                if pause is None:
                    tried = f"tried {len(WAITS) + 1} times; run the stage again"
                    raise self._failed(error, tried) from None
                if self.stop.wait(pause):
                    raise _Stopped from None

    def _failed(self, error: Exception, hint: str) -> InputError:
        lines = str(error).strip().splitlines() or [""]
        return InputError(
            f"subset {self.subset.name}: cannot be read: {self.location} ({type(error).__name__}:"
            f" {lines[0]}); {hint} to resume, drawn rows are kept"
        )

    def _draw(self, listing: Outline) -> None:
        name, data = self.subset.name, self.data
        sizes = [group.rows for group in listing.groups]
        rows = rows_to_draw(sum(sizes), min(1.0, data.share * data.weights.get(name, 1.0)))
        start = int.from_bytes(shuffle_key(self.seed, "start", name)[:8])
        allocation = rows_per_group(sizes, rows, share=data.group_share, start=start)
        groups = [(listing.groups[i], count) for i, count in sorted(allocation.items())]
        for number, chunk in enumerate(_chunks(groups)):
            folder = self.folder / f"{number:05}"
            if not intact(folder):
                self._draw_chunk(chunk, folder)
        facts = {"holds": sum(sizes), "draws": rows, "outline_bytes": listing.bytes_read}
        write_json(self.folder / "subset.json", facts)

    def _draw_chunk(self, chunk: Sequence[tuple[RowGroup, int]], folder: Path) -> None:
        counts, bytes_read = Counts(), 0

        def rows() -> Iterator[dict[str, Any]]:
            nonlocal bytes_read
            for number, groups in groupby(chunk, key=lambda item: item[0].file):
                file = self.subset.files[number]
                self.location = file.location
                with open_parquet(file) as (parquet, stream):
                    for group, count in groups:
                        if self.stop.is_set():
                            raise _Stopped
                        yield from self._rows(parquet, file, group, count, counts)
                bytes_read += stream.bytes_read

        with kept(folder) as partial:
            partial.mkdir()
            ids = write_rows(rows(), partial / "rows")
            bytes_kept = sum(path.stat().st_size for path in (partial / "rows").iterdir())
            facts: dict[str, Any] = {"count": len(ids), "bytes_read": bytes_read}
            write_json(partial / "counts.json", facts | vars(counts))
        _show_bytes(self.bar, bytes_read, bytes_kept)

    def _rows(
        self, parquet: pq.ParquetFile, file: DataFile, group: RowGroup, count: int, counts: Counts
    ) -> Iterator[dict[str, Any]]:
        """Yield `count` drawn rows of one row group, cleaned."""
        convert = converter(parquet.schema_arrow, file.location)
        names = convert.columns if convert else SCHEMA.names
        columns = [name for name in names if name in parquet.schema_arrow.names]
        key = ("row", self.subset.name, file.name, group.number)
        numbers = rows_in_group(group.rows, count, self.seed, *key)
        self.location = f"{file.location}, row group {group.number}"
        for source_row in _python_rows(parquet, group.number, columns, numbers, counts):
            converted = convert(source_row) if convert else source_row
            with slow_named(f"{self.location}: an image", _SKIP):
                row = clean_row(converted, self.subset.name, self.data, counts)
            if row is not None:
                row |= {"sample_id": sample_id(row), "domain": "native", "task": "native"}
                yield row


def _is_of_reading(error: Exception) -> bool:
    """Tell failures of the network or of a file from bugs."""
    if isinstance(error, PARQUET_ERRORS):
        return True
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore")


def _chunks(groups: Sequence[tuple[RowGroup, int]]) -> Iterator[list[tuple[RowGroup, int]]]:
    """Split row groups, with the rows to draw of each, at the resume points."""
    chunk: list[tuple[RowGroup, int]] = []
    size = 0
    for item in groups:
        if chunk and size + item[0].size > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += item[0].size
    if chunk:
        yield chunk


def _python_rows(
    parquet: pq.ParquetFile, group: int, columns: list[str], numbers: Sequence[int], counts: Counts
) -> Iterator[dict[str, Any]]:
    """Convert the numbered rows of a row group; skip and count those with broken text.

    A few are read at a time: pyarrow cannot read or cast 2 GiB of nested bytes at once.
    """
    end = 0
    for batch in parquet.iter_batches(_FEW, row_groups=[group], columns=columns, use_threads=False):
        begin, end = end, end + batch.num_rows
        drawn_numbers = numbers[bisect_left(numbers, begin) : bisect_left(numbers, end)]
        few = plain_table(pa.Table.from_batches([batch])).take(
            pa.array([row - begin for row in drawn_numbers], pa.int64())
        )
        try:
            yield from few.to_pylist()
        except UnicodeDecodeError:
            for number in range(few.num_rows):
                try:
                    yield from few.slice(number, 1).to_pylist()
                except UnicodeDecodeError:
                    counts.left_out["text that is not UTF-8"] += 1


_bar_lock = threading.Lock()


def _show_bytes(bar: Any, bytes_read: int, bytes_kept: int) -> None:
    with _bar_lock:
        bar.bytes_read = getattr(bar, "bytes_read", 0) + bytes_read
        bar.bytes_kept = getattr(bar, "bytes_kept", 0) + bytes_kept
        megabytes = {"read": bar.bytes_read, "kept": bar.bytes_kept}
        bar.set_postfix({name: f"{size / 1e6:.1f} MB" for name, size in megabytes.items()})
