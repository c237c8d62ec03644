"""The images of a benchmark's rows, read from local data. No torch here."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from interlace.errors import InputError
from interlace.evaluation.benchmarks import heldout
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS
from interlace.evaluation.benchmarks.files import benchmark_files
from interlace.params.evaluating import Evaluate


def row_images(
    params: Evaluate, benchmark: str, rows: Collection[int]
) -> dict[int, list[Image.Image]]:
    """Read the images of some rows of a benchmark.

    Args:
        params: name the data's files.
        benchmark: its name, or a source of a held-out or judged file.
        rows: their numbers in the benchmark's data.

    Returns:
        By row its images; empty if the benchmark's data is not local.

    Raises:
        InputError: no file of `params` holds the benchmark.
    """
    if benchmark in BENCHMARKS:
        if params.data is None:
            return {}
        files = benchmark_files(Path(params.data), BENCHMARKS[benchmark])
        values = _column_values(files, "image", set(rows))
    else:
        values = _source_images(params, benchmark, rows)
    return {row: [_decode(image) for image in _as_list(value)] for row, value in values}


def _column_values(
    files: Iterable[Path], column: str, rows: Collection[int]
) -> Iterator[tuple[int, Any]]:
    """Values of a column in some rows, numbered over all files; reads only their row groups."""
    start = 0
    for path in files:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                if in_group := [row for row in sorted(rows) if start <= row < end]:
                    values = file.read_row_group(group, columns=[column])[column]
                    yield from ((row, values[row - start].as_py()) for row in in_group)
                start = end


def _source_images(
    params: Evaluate, source: str, rows: Collection[int]
) -> Iterator[tuple[int, Any]]:
    for file in (params.heldout, *params.judged):
        table = heldout.read_sources(Path(file)).get(source) if file else None
        if table is not None:
            yield from ((row, table["images"][row].as_py()) for row in sorted(rows))
            return
    raise InputError(
        f"{source}: not in evaluate.benchmarks, heldout or judged; pass the params of its run by"
        " --params"
    )


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _decode(image: Any) -> Image.Image:
    """Decode {"bytes", "path"}, or base64 text, which HRBench has."""
    encoded = base64.b64decode(image) if isinstance(image, str) else image["bytes"]
    return Image.open(io.BytesIO(encoded)).convert("RGB")
