"""The training and the calibration set: drawn by subset, joined without repeats."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from interlace.data.draw import Chunk, DrawnSubset, draw_subsets
from interlace.data.files import DataFile
from interlace.data.subsets import selected_subsets
from interlace.errors import InputError
from interlace.params.inputs import Data
from interlace.samples.order import shuffle_key
from interlace.samples.rows import iterate_tables, shards


@dataclass
class DrawCounts:
    """Counts of the draw, before and after rows were skipped.

    Attributes:
        subsets: by name, the rows that it `holds`, that were `drawn` and `kept`; `bytes_read`.
        left_out: rows by the reason.
        odd: rows that were kept, by what was odd or had to be changed.
        rows: of the training set.
        calibration: rows of the calibration set.
        bytes_read: Parquet bytes, footers included.
        bytes_kept: Parquet bytes of the training set.
    """

    subsets: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    calibration: int = 0
    bytes_read: int = 0
    bytes_kept: int = 0


def sample(
    files: Sequence[DataFile],
    train: Path,
    calibration: Path,
    *,
    data: Data,
    seed: int,
    scratch: Path,
    outlines: Path,
) -> DrawCounts:
    """Draw the training set, and the calibration set from it.

    Args:
        files: as `data_files` lists them.
        train: folder to write the training rows to, ordered by subset, file and row.
        calibration: folder to write the calibration rows to: those of the training set whose id
            comes first in the seed's order, `calibration_fraction` of them.
        data: shares, weights and limits of the draw.
        seed: of both draws.
        scratch: folder for unfinished work; use another whenever files, seed or `data` (but for
            its workers) change.
        outlines: folder that remembers the row groups of subsets.

    Raises:
        InputError: a subset, file or column is wrong or cannot be read, the disk is full, or no
            rows were drawn. Rows drawn until then stay in `scratch`.
    """
    drawn_subsets = draw_subsets(selected_subsets(files, data), data, seed, scratch, outlines)
    counts = _add_up(drawn_subsets)
    chunks = [chunk for subset in drawn_subsets.values() for chunk in subset.chunks]
    _write_sets(chunks, train, calibration, counts, data, seed)
    return counts


def _add_up(subsets: Mapping[str, DrawnSubset]) -> DrawCounts:
    """Add up the counts of all chunks."""
    counts = DrawCounts()
    for name, subset in subsets.items():
        for chunk in subset.chunks:
            counts.left_out.update(chunk.left_out)
            counts.odd.update(chunk.odd)
        bytes_read = subset.outline_bytes + sum(chunk.bytes_read for chunk in subset.chunks)
        counts.subsets[name] = {
            "holds": subset.holds,
            "drawn": subset.draws,
            "bytes_read": bytes_read,
            "kept": sum(chunk.count for chunk in subset.chunks),
        }
        counts.bytes_read += bytes_read
    return counts


def _write_sets(
    chunks: Sequence[Chunk],
    train: Path,
    calibration: Path,
    counts: DrawCounts,
    data: Data,
    seed: int,
) -> None:
    """Write both sets in one pass over the chunks, without repeats."""
    ids = _ids(chunks)
    first = np.zeros(len(ids), dtype=bool)
    first[np.unique(ids, return_index=True)[1]] = True
    counts.rows = int(first.sum())
    if not counts.rows:
        raise InputError(_no_rows(counts, data))
    if repeated := len(ids) - counts.rows:
        counts.left_out["repeated"] += repeated
    calibrates = _calibration(ids, first, data.calibration_fraction, seed)
    counts.calibration = int(calibrates.sum())
    begin = 0
    with shards(train) as to_train, shards(calibration) as to_calibration:
        for rows in (table for chunk in chunks for table in iterate_tables(chunk.rows)):
            span = slice(begin, begin + rows.num_rows)
            to_train(rows.filter(pa.array(first[span])))
            to_calibration(rows.filter(pa.array(calibrates[span])))
            begin += rows.num_rows
    counts.bytes_kept = sum(path.stat().st_size for path in train.iterdir())


def _ids(chunks: Sequence[Chunk]) -> NDArray[np.uint64]:
    """Return the ids of all rows as numbers, 8 bytes each; [rows]."""
    ids = [
        np.array([int(i, 16) for i in rows["sample_id"].to_pylist()], dtype=np.uint64)
        for chunk in chunks
        for rows in iterate_tables(chunk.rows, ["sample_id"])
    ]
    return np.concatenate(ids) if ids else np.zeros(0, dtype=np.uint64)


def _calibration(
    ids: NDArray[np.uint64], first: NDArray[np.bool_], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Mark the rows of the calibration set among the first occurrences; [rows]."""
    indices = np.flatnonzero(first)
    keys = (shuffle_key(seed, "calibration", f"{ids[i]:016x}") for i in indices)
    order = np.fromiter(
        (int.from_bytes(key[:8]) for key in keys), dtype=np.uint64, count=len(indices)
    )
    count = max(1, math.floor(fraction * len(indices) + 1e-9))
    calibrates = np.zeros(len(ids), dtype=bool)
    calibrates[indices[np.argsort(order, kind="stable")[:count]]] = True
    return calibrates


def _no_rows(counts: DrawCounts, data: Data) -> str:
    reasons = "; ".join(f"{rows} rows: {reason}" for reason, rows in counts.left_out.most_common(3))
    return (
        f"data.id = {data.id}: no rows were drawn: the data is empty, or all were skipped"
        f" ({reasons or 'no rows'})"
    )
