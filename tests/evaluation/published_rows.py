"""Made-up rows of each published benchmark, with the columns of the catalogue."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset, Image
from models import picture

from interlace.evaluation.benchmarks.catalogue import BENCHMARKS

COLOURS = ("red", "green", "blue", "white")
N = 6


def two_orders(i: int) -> dict[str, Any]:
    """Each question twice: in odd rows with its options reversed."""
    colours = COLOURS if i % 2 == 0 else COLOURS[::-1]
    return {
        "index": 200 + i // 2 + (i % 2) * 10**6,
        "question": f"Which colour has flag {i // 2} ?",
        "answer": "ABCD"[colours.index(COLOURS[i // 2])],
        **dict(zip("ABCD", colours, strict=True)),
    }


def hrbench(i: int) -> dict[str, Any]:
    encoded = base64.b64encode(picture(i // 2, side=32)).decode()
    return {**two_orders(i), "cycle_category": str(i % 2), "image": encoded}


# the values that matter to a task, by row number; others are text
VALUES: dict[str, Callable[[int], dict[str, Any]]] = {
    "AI2D": lambda i: {"options": list(COLOURS), "answer": str(i % 4)},
    "ChartQA": lambda i: {"type": f"{('human', 'augmented')[i % 2]}_test", "answer": str(10 + i)},
    "OCRBench": lambda i: {
        "dataset": "HME100k" if i % 2 else "IIIT5K",
        "question_type": "Regular Text Recognition" if i % 2 else "Doc-oriented VQA",
        "answer": [f"word{i}", f"WORD {i}"],
    },
    "TextVQA": lambda i: {"answers": [f"stop {i}"] * 8 + ["halt"] * 2},
    "MMBench": two_orders,
    "POPE": lambda i: {"answer": "yes" if i % 2 else "no"},
    "RealWorldQA": lambda i: {"answer": str(i) if i % 2 else "ABCD"[i % 4]},
    "HRBench4K": hrbench,
    "HRBench8K": hrbench,
    "VStar": lambda i: {
        "category": "direct_attributes" if i % 2 else "relative_position",
        "label": "ABCD"[i % 4],
    },
    "MIABench": lambda i: {
        "instruction": f"Describe picture {i} in one sentence.",
        "components": ["mentions the dog", "rhymes"],
        "component_weight": [4, 6],
    },
    "ScienceQA": lambda i: (
        {"choices": ["water", "ice", "steam"], "answer": i % 3} | ({} if i % 2 else {"image": None})
    ),
}


def published_rows(name: str, n: int = N) -> list[dict[str, Any]]:
    columns = BENCHMARKS[name].columns
    return [
        {column: f"{column} {i}" for column in columns}
        | {"image": {"bytes": picture(i, side=32), "path": None}}
        | VALUES[BENCHMARKS[name].published](i)
        for i in range(n)
    ]


def write_parquet(name: str, path: Path, n: int = N) -> Path:
    """Write the rows of one benchmark, with the types of its data set on the hub."""
    rows = Dataset.from_list(published_rows(name, n))
    if not name.startswith("HRBench"):
        rows = rows.cast_column("image", Image())
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(path)
    return path
