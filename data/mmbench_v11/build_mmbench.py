"""Write MMBench dev V1.1 for `evaluate.data` from VLMEvalKit's table; it is not on the hub.

    python data/mmbench_v11/build_mmbench.py MMBench_DEV_EN_V11.tsv benchmarks/MMBench-V1.1.parquet

Each question comes in several orders of its options; images are base64, and a row without one of
its own names the row that has it.
"""

from __future__ import annotations

import base64
import binascii
import csv
import sys
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq

from interlace.errors import InputError, MissingInputError
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS
from interlace.samples.rows import IMAGE
from interlace.system.outputs import whole

COLUMNS = BENCHMARKS["MMBench-V1.1"].columns
RENAMED = {"l2-category": "L2-category"}
READ = ("index", "question", "answer", "A", "B", "image")  # without which there is no question
LONGEST_INDEX = 64  # characters; a longer cell is an image and not a row's index
ROW_GROUP = 256  # rows

Row = dict[str, Any]


def build_mmbench(table: Path, out: Path) -> int:
    """Convert a table, and return its number of rows.

    Raises:
        InputError: it is missing, is another table, or an image cannot be decoded.
    """
    csv.field_size_limit(2**31 - 1)
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = [
                {RENAMED.get(name, name): value for name, value in row.items() if name}
                for row in csv.DictReader(file, delimiter="\t")
            ]
    except FileNotFoundError:
        raise MissingInputError(table) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: not a readable table ({error})") from None
    missing = [name for name in READ if not rows or name not in rows[0]]
    if missing:
        raise InputError(f"{table}: not a table of MMBench: column {', '.join(missing)} is missing")
    images = {row["index"]: row["image"] for row in rows}
    columns = [_converted(row, images, f"{table}: row {n}") for n, row in enumerate(rows, start=1)]
    types = {"index": pa.int64(), "image": IMAGE}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
    with whole(out) as partial:
        pq.write_table(
            pa.Table.from_pylist(columns, schema=schema), partial, row_group_size=ROW_GROUP
        )
    return len(rows)


def _converted(row: Row, images: dict[str, str], where: str) -> Row:
    """Return a row with the columns of the hub's MMBench; empty cells are null."""
    cell = row["image"] or ""
    image = cell if len(cell) > LONGEST_INDEX else images.get(cell, "")
    try:
        content = base64.b64decode(image, validate=True)
        index = int(row["index"])
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{where}: {error}; download the table again") from None
    if not content:
        raise InputError(f"{where}: image = {cell!r}: no such row; download the table again")
    values = {name: row.get(name) or None for name in COLUMNS}
    return values | {"index": index, "image": {"bytes": content, "path": None}}


@click.command()
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def main(table: Path, out: Path) -> None:
    """Write OUT, for evaluate.data, from VLMEvalKit's TABLE of MMBench dev V1.1."""
    try:
        rows = build_mmbench(table, out)
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    click.echo(f"{out}: {rows} rows")


if __name__ == "__main__":
    main()
