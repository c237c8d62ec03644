"""The images that a row of a benchmark shows, read from local data. No torch here."""

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
    params: Evaluate, benchmark: str, places: Collection[int]
) -> dict[int, list[Image.Image]]:
    """Images of some rows of a benchmark, by the rows' places.

    Args:
        params: say where the data is.
        benchmark: its name, or a source of a held-out file.
        places: of the rows in the benchmark's data.

    Returns:
        For every place its images; nothing for benchmarks that are not local.
    """
    if benchmark in BENCHMARKS:
        if params.data is None:
            return {}
        files = benchmark_files(Path(params.data), BENCHMARKS[benchmark])
        values = _values(files, "image", set(places))
    else:
        values = _heldout(params, benchmark, places)
    return {place: [_opened(image) for image in _listed(value)] for place, value in values}


def _values(
    files: Iterable[Path], column: str, places: Collection[int]
) -> Iterator[tuple[int, Any]]:
    """A column's values in some rows of files that follow each other; reads no other row group."""
    start = 0
    for path in files:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                wanted = [place for place in sorted(places) if start <= place < end]
                if wanted:
                    values = file.read_row_group(group, columns=[column])[column]
                    yield from ((place, values[place - start].as_py()) for place in wanted)
                start = end


def _heldout(params: Evaluate, source: str, places: Collection[int]) -> Iterator[tuple[int, Any]]:
    for file in (params.heldout, *params.judged):
        rows = heldout.read_sources(Path(file)).get(source) if file else None
        if rows is not None:
            yield from ((place, rows["images"][place].as_py()) for place in sorted(places))
            return
    raise InputError(f"{source}: in none of evaluate.benchmarks, heldout and judged; pass --params")


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _opened(image: Any) -> Image.Image:
    """From {"bytes", "path"}, or from base64 text as HRBench has it."""
    stored = base64.b64decode(image) if isinstance(image, str) else image["bytes"]
    return Image.open(io.BytesIO(stored)).convert("RGB")
