"""A held-out Parquet file in FineVision's schema: each of its sources is a benchmark.

A row asks for its last answer, after its images and its earlier turns with their true answers. The
score is normalised exact match. Placeholders and control tokens are removed from its text, as from
the text of training rows. No torch and no lmms-eval here: the file is checked before anything
is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from interlace.data.cleaning import freed
from interlace.errors import InputError
from interlace.samples import rows as samples
from interlace.samples.parquet import file_rows, file_tables, read_schema, readable

CATEGORY = "Held-out"
JUDGED = "Judged"  # category of open questions
COLUMNS = ["images", "texts", "source"]


def normalised(answer: str) -> str:
    """Remove from an answer what exact match ignores: outer space, case, a last full stop."""
    return answer.strip().casefold().removesuffix(".").rstrip()


def is_exact_match(answer: str, target: str) -> bool:
    """Compare two answers after normalisation."""
    return normalised(answer) == normalised(target)


def check_questions(path: Path, field: str = "evaluate.heldout") -> None:
    """Refuse a file that is not Parquet in FineVision's schema.

    Args:
        path: the file.
        field: the parameter that names it, for messages.

    Raises:
        InputError: the file or a column is missing or unreadable; the message names it.
    """
    if not path.is_file():
        raise InputError(f"{field} = {path}: no such file")
    samples.check_schema(read_schema(path), str(path))


def check_rows(path: Path) -> list[str]:
    """Refuse rows without a question, and list the sources.

    Returns:
        The sources, sorted.

    Raises:
        InputError: there is no row, or one without a source, a question or an answer.
    """
    sources: set[str] = set()
    for row, values in file_rows(path, ["texts", "source"]):
        values = values | {"texts": _freed(values["texts"])}
        samples.check_row(values, f"{path}: row {row}")
        sources.add(values["source"])
    if not sources:
        raise InputError(f"{path}: no rows to evaluate on; write at least one")
    return sorted(sources)


def read_sources(path: Path) -> dict[str, pa.Table]:
    """Read the rows of each source in the file's order; images stay encoded.

    Returns:
        Tables by source, sorted, with the columns `images`, `texts` and `source` in
        FineVision's types and without schema metadata.

    Raises:
        InputError: the file is damaged.
    """
    schema = pa.schema([samples.SCHEMA.field(name) for name in COLUMNS])
    with readable(str(path)):  # a few rows at a time: pyarrow joins no 2 GiB of nested bytes
        table = pa.concat_tables(
            _without_placeholders(few.select(COLUMNS).cast(schema))
            for few in file_tables(path, COLUMNS)
        )
    sources = table["source"]
    return {
        source: table.filter(pc.equal(sources, source))
        for source in sorted(sources.unique().to_pylist())
    }


def _without_placeholders(rows: pa.Table) -> pa.Table:
    texts = rows["texts"].to_pylist()
    bare = [_freed(turns) for turns in texts]
    if bare == texts:
        return rows
    column = rows.schema.get_field_index("texts")
    return rows.set_column(column, rows.schema.field(column), pa.array(bare, rows["texts"].type))


def _freed(turns: Any) -> Any:
    return [
        {side: freed(text) if isinstance(text, str) else text for side, text in turn.items()}
        if turn
        else turn
        for turn in turns or ()
    ]


def question(turns: Sequence[Mapping[str, str]]) -> str:
    """Join all text that the model is shown: all turns without the last answer."""
    texts = [text for turn in turns for text in (turn["user"], turn["assistant"])]
    return "\n".join(texts[:-1])
