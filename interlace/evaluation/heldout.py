"""A held-out Parquet file in FineVision's schema: each of its sources is a benchmark.

A row asks for its last answer, given its images and its earlier turns with their true answers. The
score is normalised exact match. No torch and no lmms-eval here: what the file must be is checked
before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from interlace.errors import InputError

CATEGORY = "Held-out"
COLUMNS = {
    "images": "list<struct<bytes: binary, path: string>>",
    "texts": "list<struct<user: string, assistant: string>>",
    "source": "string",
}


def normalised(answer: str) -> str:
    """An answer without what exact match should not see: outer space, case, a last full stop."""
    return answer.strip().casefold().removesuffix(".").rstrip()


def is_exact_match(answer: str, target: str) -> bool:
    """Whether two answers are the same after normalisation."""
    return normalised(answer) == normalised(target)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _struct_fields(kind: pa.DataType) -> dict[str, pa.DataType]:
    """Names and types of the fields of a list of structs; empty for anything else."""
    if not _is_list(kind) or not pa.types.is_struct(kind.value_type):
        return {}
    return {field.name: field.type for field in kind.value_type}


def _fits(column: str, kind: pa.DataType) -> bool:
    fields = _struct_fields(kind)
    if column == "images":  # a file without any image may have no type to speak of
        no_images = pa.types.is_null(kind) or (_is_list(kind) and pa.types.is_null(kind.value_type))
        return no_images or ("bytes" in fields and _is_bytes(fields["bytes"]))
    if column == "texts":
        return all(name in fields and _is_text(fields[name]) for name in ("user", "assistant"))
    return _is_text(kind)


def check_schema(path: Path) -> None:
    """Refuse a file that is not Parquet in FineVision's schema.

    Raises:
        InputError: the file is missing or unreadable, or a column is; it names which.
    """
    if not path.is_file():
        raise InputError(f"evaluate.heldout = {path}: no such file")
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a Parquet file: {' '.join(str(error).split())}") from None
    for column, expected in COLUMNS.items():
        if column not in schema.names:
            raise InputError(f"{path}: no column {column!r}; expected {column}: {expected}")
        kind = schema.field(column).type
        if not _fits(column, kind):
            raise InputError(f"{path}: column {column!r}: expected {expected}, found {kind}")


def check_rows(path: Path) -> list[str]:
    """Refuse rows that ask nothing, and list the sources.

    Returns:
        The sources, sorted.

    Raises:
        InputError: there is no row, or one without a source, a question or an answer.
    """
    sources: set[str] = set()
    row = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["texts", "source"]):
            for values in batch.to_pylist():
                if complaint := _complaint(values):
                    raise InputError(f"{path}: row {row}, {complaint}")
                sources.add(values["source"])
                row += 1
    if not sources:
        raise InputError(f"{path}: no rows, so nothing to evaluate on")
    return sorted(sources)


def _complaint(row: Mapping[str, Any]) -> str | None:
    if not row["source"]:
        return "column 'source': empty"
    if not row["texts"]:
        return "column 'texts': no turn"
    for turn, text in enumerate(row["texts"]):
        for role in ("user", "assistant"):
            if text is None or text[role] is None:
                return f"column 'texts': turn {turn} has no {role!r} text"
    return None


def read_sources(path: Path) -> dict[str, pa.Table]:
    """The rows of each source, in the file's order, sources sorted; images stay encoded.

    Returns:
        Tables with the columns `images`, `texts` and `source`, without schema metadata.
    """
    table = pq.read_table(path, columns=list(COLUMNS)).replace_schema_metadata(None)
    places: dict[str, list[int]] = {}
    for row, source in enumerate(table["source"].to_pylist()):
        places.setdefault(source, []).append(row)
    return {source: table.take(pa.array(places[source])) for source in sorted(places)}


def question(turns: Sequence[Mapping[str, str]]) -> str:
    """All text the model is given: every turn but the last answer."""
    said = [text for turn in turns for text in (turn["user"], turn["assistant"])]
    return "\n".join(said[:-1])
