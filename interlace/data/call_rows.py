"""Rows of a call from Python: in memory, in Parquet or on the hub, drawn as `sample` draws them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from interlace.data.files import DataFile, data_files
from interlace.data.row_groups import outline
from interlace.data.sets import sample
from interlace.data.subsets import selected_subsets
from interlace.errors import InputError, complaint
from interlace.params.inputs import Data
from interlace.params.section import validated
from interlace.samples.rows import SCHEMA
from interlace.sources.pin import pin_data
from interlace.sources.pinned import PinnedData
from interlace.system.outputs import remove, whole
from interlace.system.resumable import intact, mark

Rows: TypeAlias = "Path | str | pa.Table | Sequence[Mapping[str, Any]]"


def pin_rows(rows: Rows, root: Path) -> PinnedData:
    """Pin rows.

    Args:
        rows: a Parquet file or a folder of them, a hub id, an Arrow table, or a list of mappings
            with `images`, `texts` and `source` as in FineVision.
        root: folder for rows in memory, and for hashes.

    Raises:
        InputError: no such file or repository, or rows in memory that are none of FineVision's.
    """
    path = str(rows) if isinstance(rows, Path | str) else str(_stored(rows, root / "rows"))
    return pin_data(path, None, field="rows", hashes=root / "hashes.json")


def _stored(rows: pa.Table | Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write rows in memory to a file that their content names."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows if isinstance(rows, pa.Table) else _table(rows), sink)
    content = sink.getvalue().to_pybytes()
    path = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.parquet"
    with whole(path) as partial:
        partial.write_bytes(content)
    return path


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    try:
        names = {name for row in rows for name in row}
        schema = pa.schema([field for field in SCHEMA if field.name in names])
        return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    except (pa.ArrowException, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"rows: not mappings with images, texts and source as in FineVision: {complaint(error)}"
        ) from None


@dataclass(frozen=True)
class Draw:
    """A draw of rows.

    Attributes:
        samples: rows to draw, spread over all subsets; `None`: all of them, of FineVision 1%.
        seed: of the draw.
        with_images: False skips rows with an image, for a model that takes text alone.
    """

    samples: int | None
    seed: int
    with_images: bool


def draw_rows(data: PinnedData, draw: Draw, out: Path, root: Path) -> Path:
    """Draw rows into a folder, unless they are there.

    Args:
        data: to draw from.
        draw: which rows.
        out: folder to write.
        root: folder that remembers the row groups of subsets.

    Returns:
        The folder.

    Raises:
        InputError: a file or column is wrong or cannot be read, or no rows were drawn.
    """
    if intact(out):
        return out
    files, outlines, scratch = data_files(data, "rows"), root / "outlines", out.with_suffix(".draw")
    values: dict[str, Any] = {"id": data.id, "calibration_fraction": 1e-9}
    values |= {} if draw.with_images else {"max_images": 0}
    if draw.samples is not None:
        values["fraction"] = _fraction(files, outlines, draw.samples)
    options = validated(Data, values, "rows")
    aside = scratch / "calibration"  # the draw's own smaller set, which no call reads
    sample(files, out, aside, data=options, seed=draw.seed, scratch=scratch, outlines=outlines)
    mark(out)
    remove(scratch)
    return out


def _fraction(files: Sequence[DataFile], outlines: Path, samples: int) -> float:
    """Return the share of all rows that so many are.

    Raises:
        InputError: not one row is to be drawn, or there are none.
    """
    if samples < 1:
        raise InputError(f"samples = {samples}: must be 1 or more")
    subsets = selected_subsets(files, Data(id="rows"))
    with ThreadPoolExecutor(8) as pool:
        listings = list(pool.map(lambda subset: outline(subset, outlines), subsets))
    rows = sum(group.rows for listing in listings for group in listing.groups)
    return min(1.0, samples / max(1, rows))
