"""The training set and the calibration set: drawn by subset, put together without repeats."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from interlace.data.draw import chunks, draw_subsets
from interlace.data.files import DataFile
from interlace.data.subsets import selected_subsets
from interlace.errors import InputError
from interlace.params.inputs import Data
from interlace.samples.order import shuffle_key
from interlace.samples.rows import iterate_tables, shards


@dataclass
class DrawCounts:
    """What was drawn, before and after rows were left out.

    Attributes:
        subsets: by name, how many rows it `holds`, were `drawn` and `kept`, and `bytes_read`.
        left_out: rows by the reason.
        odd: rows that are kept, by what was odd about them or had to be changed.
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
    """Draw the training set, and from it the calibration set.

    Args:
        files: as `sources.data_files` gives them.
        train: folder to write the training rows to, ordered by subset, file and row.
        calibration: folder to write the calibration rows to: those of the training set whose id
            ranks lowest under the seed, `calibration_fraction` of them.
        data: what to draw.
        seed: of both draws.
        scratch: folder for unfinished work; must be another one whenever files, `data` (but for
            its workers) or seed change.
        outlines: folder that remembers the row groups of subsets.

    Raises:
        InputError: a subset, file or column that is not what it should be or cannot be read, a full
            disk, or nothing was drawn. What was drawn until then stays in `scratch`.
    """
    subsets = selected_subsets(files, data)
    parts = draw_subsets(subsets, data, seed, scratch, outlines)
    drawn = _gathered(parts)
    _write_sets(parts, train, calibration, drawn, data.calibration_fraction, seed)
    return drawn


def _gathered(parts: Mapping[str, Path]) -> DrawCounts:
    """What the chunks say about themselves, added up."""
    drawn = DrawCounts()
    for name, folder in parts.items():
        subset = json.loads((folder / "subset.json").read_text(encoding="utf-8")) | {"kept": 0}
        for chunk in chunks(folder):
            counts = json.loads((chunk / "counts.json").read_text(encoding="utf-8"))
            subset["kept"] += counts["kept"]
            subset["bytes_read"] += counts["bytes_read"]
            drawn.left_out.update(counts["left_out"])
            drawn.odd.update(counts["odd"])
        drawn.subsets[name] = subset
        drawn.bytes_read += subset["bytes_read"]
    return drawn


def _write_sets(
    parts: Mapping[str, Path],
    train: Path,
    calibration: Path,
    drawn: DrawCounts,
    calibration_fraction: float,
    seed: int,
) -> None:
    """Write both sets in one pass over the chunks, without repeats."""
    folders = [chunk / "rows" for folder in parts.values() for chunk in chunks(folder)]
    ids = _ids(folders)
    first = np.zeros(len(ids), dtype=bool)
    first[np.unique(ids, return_index=True)[1]] = True
    drawn.rows = int(first.sum())
    if not drawn.rows:
        raise InputError(_nothing(drawn))
    if repeated := len(ids) - drawn.rows:
        drawn.left_out["repeated"] += repeated
    chosen = _calibration(ids, first, calibration_fraction, seed)
    drawn.calibration = int(chosen.sum())
    begin = 0
    with shards(train) as to_train, shards(calibration) as to_calibration:
        for rows in (table for folder in folders for table in iterate_tables(folder)):
            here = slice(begin, begin + rows.num_rows)
            to_train(rows.filter(pa.array(first[here])))
            to_calibration(rows.filter(pa.array(chosen[here])))
            begin += rows.num_rows
    drawn.bytes_kept = sum(path.stat().st_size for path in train.iterdir())


def _ids(folders: Sequence[Path]) -> NDArray[np.uint64]:
    """The ids of all rows as numbers, 8 bytes each; [rows]."""
    found = [
        np.array([int(i, 16) for i in rows["sample_id"].to_pylist()], dtype=np.uint64)
        for folder in folders
        for rows in iterate_tables(folder, ["sample_id"])
    ]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.uint64)


def _calibration(
    ids: NDArray[np.uint64], first: NDArray[np.bool_], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Which rows are calibrated on; [rows]."""
    places = np.flatnonzero(first)
    found = (int.from_bytes(shuffle_key(seed, "calibration", f"{ids[i]:016x}")[:8]) for i in places)
    ranks = np.fromiter(found, dtype=np.uint64, count=len(places))
    wanted = max(1, math.floor(fraction * len(places) + 1e-9))
    chosen = np.zeros(len(ids), dtype=bool)
    chosen[places[np.argsort(ranks, kind="stable")[:wanted]]] = True
    return chosen


def _nothing(drawn: DrawCounts) -> str:
    why = "; ".join(f"{rows} rows: {reason}" for reason, rows in drawn.left_out.most_common(3))
    return f"no rows were drawn: the data is empty, or all was left out ({why or 'no rows'})"
