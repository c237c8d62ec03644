"""Edits of a Parquet table that one of our stages wrote."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

EDITS = ("drop", "rename", "no rows", "some rows", "null", "text", "rows twice", "not finite")


def harm_table(path: Path, rng: random.Random) -> str:
    """Edit a table; return what was done."""
    table, how = pq.read_table(path), rng.choice(EDITS)
    name = rng.choice(table.column_names)
    place, rows = table.column_names.index(name), table.num_rows
    if how == "drop":
        table = table.drop([name])
    elif how == "rename":
        table = table.rename_columns([f"{n}x" if n == name else n for n in table.column_names])
    elif how == "no rows":
        table = table.slice(0, 0)
    elif how == "some rows":
        table = table.slice(0, rng.randrange(max(1, rows)))
    elif how == "rows twice":
        table = pa.concat_tables([table, table])
    elif how == "null":
        table = table.set_column(place, name, pa.nulls(rows, table.schema.field(name).type))
    elif how == "text":
        table = table.set_column(place, name, pa.array(["x"] * rows, pa.string()))
    else:
        floats = [n for n in table.column_names if pa.types.is_floating(table.schema.field(n).type)]
        name = rng.choice(floats) if floats else name
        if floats:
            values = pa.array([float("nan")] * rows, table.schema.field(name).type)
            table = table.set_column(table.column_names.index(name), name, values)
    path.unlink()
    pq.write_table(table, path)
    return f"{how} {name}"
