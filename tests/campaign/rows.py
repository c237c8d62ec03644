"""Changes of the rows: the training data and the held-out rows, as Parquet."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from campaign.damage import BYTES, HALVES, PLACES, harm

FILES = ("source/train.parquet", "source/test.parquet")
WAYS = (
    ("train table", 40),
    ("test table", 20),
    ("train bytes", 10),
    ("test bytes", 8),
    ("place", 4),
)


def _cast(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def _texts(table: pa.Table, rng: random.Random, change: Callable[[Any], Any]) -> pa.Table:
    texts = table["texts"].to_pylist()
    for place in [rng.randrange(len(texts))] if rng.random() < 0.5 else range(len(texts)):
        texts[place] = change(texts[place])
    return _cast(table, "texts", pa.array(texts))


def _odd_source(table: pa.Table, rng: random.Random) -> pa.Table:
    odd = ["[b]", "[/b]", "a|b", "<i>x", "../x", "", "x" * 260, "🙂", "a\nb", "javascript:1", "$x"]
    name = rng.choice(odd)
    names = [name if n % 2 else "source_0" for n in range(table.num_rows)]
    return _cast(table, "source", pa.array(names))


def _ratings(table: pa.Table, rng: random.Random) -> pa.Table:
    kinds = [["1"] * table.num_rows, [1] * table.num_rows, [[1]] * table.num_rows]
    kinds += [["bad"] * table.num_rows, [None] * table.num_rows, [{"a": 1}] * table.num_rows]
    name = rng.choice(["relevance_ratings", "relevance_min", "formatting_min"])
    return table.append_column(name, pa.array(rng.choice(kinds)))


TABLES: dict[str, Callable[[pa.Table, random.Random], pa.Table]] = {
    "drop": lambda t, rng: t.drop([rng.choice(t.column_names)]),
    "rename": lambda t, rng: t.rename_columns(
        [f"{name}x" if name == rng.choice(t.column_names) else name for name in t.column_names]
    ),
    "no rows": lambda t, rng: t.slice(0, 0),
    "one row": lambda t, rng: t.slice(0, 1),
    "null column": lambda t, rng: _cast(t, rng.choice(t.column_names), pa.nulls(t.num_rows)),
    "texts are strings": lambda t, rng: _cast(t, "texts", pa.array(["hello"] * t.num_rows)),
    "texts are lists of strings": lambda t, rng: _cast(
        t, "texts", pa.array([["a", "b"]] * t.num_rows)
    ),
    "texts are null": lambda t, rng: _texts(t, rng, lambda texts: None),
    "texts are empty": lambda t, rng: _texts(t, rng, lambda texts: []),
    "answers are null": lambda t, rng: _texts(
        t, rng, lambda texts: [turn | {"assistant": None} for turn in texts]
    ),
    "answers are empty": lambda t, rng: _texts(
        t, rng, lambda texts: [turn | {"assistant": ""} for turn in texts]
    ),
    "answers are long": lambda t, rng: _texts(
        t, rng, lambda texts: [turn | {"assistant": "number " * 5000} for turn in texts]
    ),
    "questions hold image tokens": lambda t, rng: _texts(
        t, rng, lambda texts: [turn | {"user": "<|image_pad|><image>"} for turn in texts]
    ),
    "turns are renamed": lambda t, rng: _cast(
        t, "texts", pa.array([[{"question": "a", "answer": "b"}]] * t.num_rows)
    ),
    "answers are numbers": lambda t, rng: _cast(
        t, "texts", pa.array([[{"user": "a", "assistant": 3}]] * t.num_rows)
    ),
    "images are strings": lambda t, rng: _cast(t, "images", pa.array(["x.png"] * t.num_rows)),
    "images are bytes": lambda t, rng: _cast(t, "images", pa.array([[b"x"]] * t.num_rows)),
    "images are paths": lambda t, rng: _cast(
        t, "images", pa.array([[{"bytes": None, "path": "x.png"}]] * t.num_rows)
    ),
    "images hold null": lambda t, rng: _cast(
        t, "images", pa.array([[None]] * t.num_rows, t.schema.field("images").type)
    ),
    "images are null": lambda t, rng: _cast(
        t, "images", pa.nulls(t.num_rows, t.schema.field("images").type)
    ),
    "source is a number": lambda t, rng: _cast(t, "source", pa.array([3] * t.num_rows)),
    "source is a list": lambda t, rng: _cast(t, "source", pa.array([["a"]] * t.num_rows)),
    "source is a category": lambda t, rng: _cast(
        t, "source", t["source"].combine_chunks().dictionary_encode()
    ),
    "odd source": _odd_source,
    "ratings": _ratings,
    "column twice": lambda t, rng: t.append_column("source", t["source"]),
    "extra column": lambda t, rng: t.append_column("answers", pa.array([["x"]] * t.num_rows)),
    "rows twice": lambda t, rng: pa.concat_tables([t, t]),
}


def change(folder: Path, way: str, rng: random.Random) -> dict[str, Any]:
    """Change the training rows or the held-out rows."""
    file, what = FILES[way.startswith("test")], way.split()[-1]
    if what == "place":
        file = rng.choice(FILES)
    path = folder / file
    if what != "table":
        how = rng.choice(sorted(BYTES) if what == "bytes" else PLACES)
        harm(path, how, rng)
        return {"note": f"{file}: {how}", "damage": how in HALVES, "names": [file, "data.id"]}
    name = rng.choice(sorted(TABLES))
    table = TABLES[name](pq.read_table(path), rng)
    path.unlink()
    pq.write_table(table, path)
    return {"note": f"{file}: {name}", "names": [file, "data.id", "heldout"]}
