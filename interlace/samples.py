"""FineVision rows: read, validate, draw.

A row has images (may be none), texts (user/assistant turns), a source and ratings. Drawing is by
rank of a hash of the seed and the row's place, so that a larger fraction with the same seed
contains every smaller one, and no row depends on another.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from interlace.errors import InputError
from interlace.outputs import whole
from interlace.params import Data

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TURN = pa.struct([("user", pa.string()), ("assistant", pa.string())])
_RATINGS = ("relevance", "image_correspondence", "visual_dependency", "formatting")
_SOURCE_FIELDS = [("images", pa.list_(IMAGE)), ("texts", pa.list_(TURN)), ("source", pa.string())]
_RATING_FIELDS = [
    item
    for name in _RATINGS
    for item in ((f"{name}_ratings", pa.list_(pa.int64())), (f"{name}_min", pa.int64()))
]
_OWN_FIELDS = [("sample_id", pa.string()), ("domain", pa.string()), ("task", pa.string())]
SCHEMA = pa.schema([*_SOURCE_FIELDS, *_RATING_FIELDS, *_OWN_FIELDS])
_ROW_GROUP = 256  # rows, bounds memory while reading and writing


@dataclass
class Datasheet:
    """What was drawn and what was left out, in rows."""

    rows: int = 0
    calibration: int = 0
    text_only: int = 0
    by_source: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def check_schema(schema: pa.Schema, where: str) -> None:
    """Check that a Parquet file holds FineVision's columns.

    Raises:
        InputError: names the file, the column and what it should hold.
    """
    for name, wanted in _SOURCE_FIELDS:
        if name not in schema.names:
            raise InputError(
                f"{where}: column {name!r} is missing; FineVision's schema has"
                " images, texts and source"
            )
        found = schema.field(name).type
        if name == "images" and _is_untyped(found):
            continue  # a file without any image
        if not _alike(found, wanted):
            raise InputError(f"{where}: column {name!r} is {found}, not {wanted}")


def _is_untyped(found: pa.DataType) -> bool:
    listed = pa.types.is_list(found) and pa.types.is_null(found.value_type)
    return bool(pa.types.is_null(found) or listed)


def _alike(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_list(wanted):
        listed = pa.types.is_list(found) or pa.types.is_large_list(found)
        return listed and _alike(found.value_type, wanted.value_type)
    if pa.types.is_struct(wanted):
        types = {item.name: item.type for item in found} if pa.types.is_struct(found) else {}
        needed = [item for item in wanted if item.name != "path"]
        return all(item.name in types and _alike(types[item.name], item.type) for item in needed)
    large = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
    return bool(large.get(found, found) == wanted)


def check_row(row: dict[str, Any], where: str) -> None:
    """Check one row's values.

    Raises:
        InputError: names the place, the column and what is wrong with it.
    """
    if not isinstance(row["source"], str) or not row["source"]:
        raise InputError(f"{where}, column 'source': empty; every row needs the name of its source")
    if not row["texts"]:
        raise InputError(f"{where}, column 'texts': no turns; every row needs at least one")
    for turn, text in enumerate(row["texts"]):
        for side in ("user", "assistant"):
            if not text or not isinstance(text.get(side), str) or not text[side].strip():
                raise InputError(f"{where}, column 'texts': turn {turn} has an empty {side} text")
    for number, image in enumerate(row["images"] or ()):
        try:
            Image.open(io.BytesIO(image["bytes"])).verify()
        except Exception as error:  # PIL raises many types for damaged files
            raise InputError(
                f"{where}, column 'images': image {number} cannot be read ({error})"
            ) from None


def sample_id(row: dict[str, Any]) -> str:
    """A hash of a row's images and texts: 16 hexadecimal digits, the same wherever it is found."""
    digest = hashlib.sha256()
    for image in row["images"] or ():
        digest.update(b"i" + hashlib.sha256(image["bytes"]).digest())
    for text in row["texts"]:
        for side in ("user", "assistant"):
            digest.update(b"t" + hashlib.sha256(text[side].encode()).digest())
    return digest.hexdigest()[:16]


def rank(seed: int, *key: object) -> bytes:
    """Where something stands in a random order: the lowest ranks are drawn."""
    return hashlib.sha256(":".join(map(str, (seed, *key))).encode()).digest()


def _drawn(files: Sequence[tuple[str, Any]], fraction: float, seed: int) -> dict[str, list[int]]:
    """Row numbers to read by file: of every source, the share of rows that rank lowest."""
    ranked: dict[str, list[tuple[bytes, str, int]]] = {}
    counts: Counter[str] = Counter()  # over all files: else each would give the same rows
    for name, file in files:
        parquet = _opened(name, file)
        for row, source in enumerate(parquet.read(columns=["source"])["source"].to_pylist()):
            place = rank(seed, "draw", source, counts[source])
            counts[source] += 1
            ranked.setdefault(source, []).append((place, name, row))
    drawn: dict[str, list[int]] = {name: [] for name, _ in files}
    for _, rows in sorted(ranked.items(), key=lambda item: str(item[0])):
        wanted = math.ceil(fraction * len(rows) - 1e-9)
        for _, name, row in sorted(rows)[:wanted]:
            drawn[name].append(row)
    return {name: sorted(rows) for name, rows in drawn.items()}


def _opened(name: str, file: Any) -> pq.ParquetFile:
    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{name}: not a readable Parquet file: {error}") from None
    check_schema(parquet.schema_arrow, name)
    return parquet


def selected_rows(
    name: str, file: Any, rows: Collection[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The given rows of one file, reading only the row groups they lie in."""
    parquet, begin = _opened(name, file), 0
    columns = [column for column in SCHEMA.names if column in parquet.schema_arrow.names]
    wanted = set(rows)
    for group in range(parquet.num_row_groups):
        end = begin + parquet.metadata.row_group(group).num_rows
        if any(row in wanted for row in range(begin, end)):
            values = parquet.read_row_group(group, columns=columns).to_pylist()
            yield from ((begin + i, value) for i, value in enumerate(values) if begin + i in wanted)
        begin = end


def draw(
    files: Sequence[tuple[str, Any]], data: Data, seed: int, sheet: Datasheet
) -> Iterator[dict[str, Any]]:
    """Draw training rows, published filters applied (INTERLACE, section 4).

    Args:
        files: names and Parquet files, as `sources.parquet_files` gives them.
        data: fraction, max_images, max_turns.
        seed: of the draw.
        sheet: counts what is drawn and what is left out.

    Yields:
        Rows of `SCHEMA`, in the files' order, without repeats.

    Raises:
        InputError: a file, column or row that is not what it should be.
    """
    seen: set[str] = set()
    drawn = _drawn(files, data.fraction, seed)
    with tqdm(total=sum(map(len, drawn.values())), unit="row", desc="sample") as progress:
        for name, file in files:
            for number, row in selected_rows(name, file, drawn[name]):
                progress.update()
                check_row(row, f"{name}: row {number}")
                if len(row["images"] or ()) > data.max_images:
                    sheet.left_out[f"more than {data.max_images} images"] += 1
                    continue
                row["texts"] = row["texts"][: data.max_turns]
                row |= {"sample_id": sample_id(row), "domain": "native", "task": "native"}
                if row["sample_id"] in seen:
                    sheet.left_out["repeated"] += 1
                    continue
                seen.add(row["sample_id"])
                sheet.rows += 1
                sheet.text_only += not row["images"]
                sheet.by_source[row["source"]] += 1
                yield row


def write_rows(rows: Iterator[dict[str, Any]], folder: Path) -> list[str]:
    """Write rows to a folder of Parquet; returns their ids in order."""
    ids: list[str] = []
    with whole(folder) as partial:
        partial.mkdir()
        with pq.ParquetWriter(partial / "part-00000.parquet", SCHEMA) as writer:
            for batch in in_groups(rows, _ROW_GROUP):
                ids += [row["sample_id"] for row in batch]
                writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))
    return ids


def in_groups(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Rows in lists of `size`, the last one shorter."""
    rows = iter(rows)
    while group := list(islice(rows, size)):
        yield group


def iterate(folder: Path) -> Iterator[dict[str, Any]]:
    """All rows of a folder that `sample` wrote, one after another."""
    for path in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_ROW_GROUP):
            yield from batch.to_pylist()


def sample(
    files: Sequence[tuple[str, Any]], train: Path, calibration: Path, *, data: Data, seed: int
) -> Datasheet:
    """Draw the training set, and from it the calibration set.

    Args:
        files: names and Parquet files, as `sources.parquet_files` gives them.
        train: folder to write the training rows to.
        calibration: folder to write the calibration rows to: those of the training set whose id
            ranks lowest under the seed, `calibration_fraction` of them.
        data: what to draw.
        seed: of both draws.

    Raises:
        InputError: a file, column or row that is not what it should be, or nothing was drawn.
    """
    sheet = Datasheet()
    ids = write_rows(draw(files, data, seed, sheet), train)
    if not ids:
        raise InputError("no rows were drawn: the data is empty, or data.fraction too small")
    wanted = max(1, math.floor(data.calibration_fraction * len(ids) + 1e-9))
    chosen = set(sorted(ids, key=lambda i: rank(seed, "calibration", i))[:wanted])
    write_rows((row for row in iterate(train) if row["sample_id"] in chosen), calibration)
    sheet.calibration = len(chosen)
    return sheet


def check_source(files: Sequence[tuple[str, Any]]) -> None:
    """Check the columns of every local file before any long work.

    Raises:
        InputError: names the first file and column that is not FineVision's.
    """
    for name, file in files:
        if isinstance(file, Path):
            _opened(name, file)
