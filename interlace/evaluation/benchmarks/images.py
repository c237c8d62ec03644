"""The images of a benchmark's rows, read from local data, and a check of all. No torch here."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL
import pyarrow.parquet as pq
from PIL import Image

from interlace.errors import InputError
from interlace.evaluation.benchmarks import heldout
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS, find_benchmark
from interlace.evaluation.benchmarks.files import benchmark_files
from interlace.model.images import UnfitImage, encoded_bytes, open_image
from interlace.params.evaluating import Evaluate
from interlace.samples.parquet import file_rows, readable
from interlace.samples.rows import in_groups
from interlace.system.resumable import keep_json, read_digests

_FEW = 32  # rows whose images are opened at a time


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
        InputError: no file of `params` holds the benchmark, or an image cannot be opened.
    """
    if benchmark in BENCHMARKS:
        if params.data is None:
            return {}
        files = benchmark_files(Path(params.data), BENCHMARKS[benchmark])
        values = _column_values(files, "image", set(rows))
    else:
        values = _source_images(params, benchmark, rows)
    try:
        return {row: [_decode(image) for image in _as_list(value)] for row, value in values}
    except UnfitImage as fault:
        raise InputError(f"{benchmark}: {fault}; repair the benchmark's data") from None


def _column_values(
    files: Iterable[Path], column: str, rows: Collection[int]
) -> Iterator[tuple[int, Any]]:
    """Values of a column in some rows, numbered over all files; reads only their row groups."""
    start = 0
    for path in files:
        with readable(str(path)), pq.ParquetFile(path) as file:
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
            if max(rows, default=0) >= len(table):
                raise InputError(
                    f"{file}: {source} has no row {max(rows)}, which was answered; pass the params"
                    " of its run by --params"
                )
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
    """Decode {"bytes", "path"}, or base64 text, which HRBench has.

    Raises:
        UnfitImage: see `open_image`.
    """
    if isinstance(image, str):
        try:
            image = {"bytes": base64.b64decode(image)}
        except ValueError:
            raise UnfitImage("an image is not base64 text") from None
    return open_image(image)


@dataclass(frozen=True)
class ImageColumn:
    """The column of a Parquet file whose images are evaluated on.

    Attributes:
        path: of the file.
        column: that holds images.
        columns: that the evaluation reads.
        needed: true if the task cannot ask about a row without an image.
    """

    path: Path
    column: str
    columns: tuple[str, ...]
    needed: bool = False


def image_columns(params: Evaluate) -> list[ImageColumn]:
    """List the local files whose images are evaluated on."""
    files = [
        ImageColumn(path, "image", benchmark.columns, needed=benchmark.name != "ScienceQA")
        for benchmark in map(find_benchmark, params.benchmarks if params.data else ())
        if benchmark.judge != "always" or params.judge.url
        for path in benchmark_files(Path(params.data or ""), benchmark)
    ]
    paths = (Path(path) for path in (params.heldout, *params.judged) if path)
    return files + [ImageColumn(path, "images", ("images",)) for path in paths]


def check_images(files: Iterable[ImageColumn], digests: Mapping[Path, str], checked: Path) -> None:
    """Open all images as the evaluation will, before any long work; equal ones once.

    Args:
        files: to check.
        digests: of their contents.
        checked: file of the digests that passed earlier, with this version of Pillow.

    Raises:
        InputError: one cannot be opened, or is missing; names the file and the row.
    """
    passed = read_digests(checked)
    for file in files:
        digest = f"{digests[file.path]} {file.column} {file.needed} {PIL.__version__}"
        if digest not in passed:
            _check_file(file)
            passed.add(digest)
            keep_json(checked, sorted(passed))


def _check_file(file: ImageColumn) -> None:
    opened: set[bytes] = set()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for rows in in_groups(file_rows(file.path, file.columns), _FEW):
            reasons = pool.map(lambda row: _fault(row[1][file.column], file.needed, opened), rows)
            for (number, _), reason in zip(rows, reasons, strict=True):
                if reason:
                    raise InputError(
                        f"{file.path}: row {number}, column {file.column!r}: {reason}; repair the"
                        " image, or remove the row"
                    )


def _fault(value: Any, needed: bool, opened: set[bytes]) -> str | None:
    """Return the reason why a row's images cannot be opened; adds those that can to `opened`."""
    images = _as_list(value)
    if needed and not images:
        return "no image"
    try:
        for image in images:
            encoded = image if isinstance(image, str) else encoded_bytes(image) or b""
            key = hashlib.sha256(encoded.encode() if isinstance(encoded, str) else encoded).digest()
            if key not in opened:
                _decode(image)
                opened.add(key)
    except UnfitImage as fault:
        return str(fault)
    return None
