"""Made-up rows of each published benchmark, with the columns of the catalogue, and answers."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value
from models import picture

from interlace.evaluation.benchmarks.catalogue import BENCHMARKS

TEXT = Value("string")
OPTIONS = ("red", "green", "blue", "white")
N = 6


def _image(i: int) -> dict[str, Any]:
    return {"bytes": picture(i, side=32), "path": None}


def ai2d(i: int) -> dict[str, Any]:
    return {
        "question": f"Which colour is part {i} ?",
        "options": list(OPTIONS),
        "answer": str(i % 4),
        "image": _image(i),
    }


def chartqa(i: int) -> dict[str, Any]:
    kind = "human_test" if i % 2 else "augmented_test"
    question = f"What is the height of bar {i} ?"
    return {"type": kind, "question": question, "answer": str(10 * (i + 1)), "image": _image(i)}


def ocrbench(i: int) -> dict[str, Any]:
    return {
        "dataset": "HME100k" if i % 2 else "IIIT5K",
        "question": "what is written in the image?",
        "question_type": "Regular Text Recognition" if i % 2 else "Doc-oriented VQA",
        "answer": [f"word{i}", f"WORD {i}"],
        "image": _image(i),
    }


def textvqa(i: int) -> dict[str, Any]:
    return {
        "question_id": 34602 + i,
        "question": "what does the sign say?",
        "answers": [f"stop {i}"] * 8 + ["halt"] * 2,
        "image": _image(i),
    }


def mmbench(i: int) -> dict[str, Any]:
    """Each question twice: rows 0, 2, 4, and their options reversed in rows 1, 3, 5."""
    options = OPTIONS if i % 2 == 0 else OPTIONS[::-1]
    return {
        "index": 200 + i // 2 + (i % 2) * 10**6,
        "question": f"Which colour has shape {i // 2} ?",
        "hint": "nan" if i < 2 else "Look closely.",
        "answer": "ABCD"[options.index(OPTIONS[i // 2])],
        **dict(zip("ABCD", options, strict=True)),
        "category": "attribute_recognition",
        "image": _image(i // 2),
        "source": "made up",
        "L2-category": "finegrained_perception",
        "split": "dev",
    }


def pope(i: int) -> dict[str, Any]:
    return {
        "question_id": str(i),
        "question": "Is there a dog in the image?",
        "answer": "yes" if i % 2 else "no",
        "image": _image(i),
    }


def realworldqa(i: int) -> dict[str, Any]:
    letters = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", OPTIONS, strict=True))
    if i % 2:
        return {"question": f"How many cars {i}?", "answer": str(i), "image": _image(i)}
    question = f"Which light {i}?\n{letters}\nPlease answer directly with only the letter."
    return {"question": question, "answer": "ABCD"[i % 4], "image": _image(i)}


def hrbench(i: int) -> dict[str, Any]:
    """Each question twice, with its options in another order."""
    options = OPTIONS if i % 2 == 0 else OPTIONS[::-1]
    return {
        "index": i,
        "question": f"Which colour is flag {i // 2}?",
        "answer": "ABCD"[options.index(OPTIONS[i // 2])],
        "category": "single" if i < 4 else "cross",
        **dict(zip("ABCD", options, strict=True)),
        "cycle_category": str(i % 2),
        "image": base64.b64encode(picture(i // 2, side=32)).decode(),
    }


def vstar(i: int) -> dict[str, Any]:
    letters = " ".join(f"({letter}) {text}" for letter, text in zip("ABCD", OPTIONS, strict=True))
    return {
        "image": _image(i),
        "text": f"What is the colour of scarf {i}? {letters}",
        "category": "direct_attributes" if i % 2 else "relative_position",
        "label": "ABCD"[i % 4],
        "question_id": str(i),
    }


def mia_bench(i: int) -> dict[str, Any]:
    components = ["mentions the dog", "is one sentence", "rhymes"][: 1 + i % 3]
    weights = [[10], [4, 6], [3, 3, 4]][i % 3]
    return {
        "instruction": f"Describe picture {i} in one sentence.",
        "image": _image(i),
        "components": components,
        "component_weight": weights,
    }


def scienceqa(i: int) -> dict[str, Any]:
    return {
        "image": _image(i) if i % 2 else None,
        "question": f"Which is solid {i}?",
        "choices": ["water", "ice", "steam"],
        "answer": i % 3,
        "hint": "" if i % 2 else "Think of winter.",
    }


@dataclass(frozen=True)
class Example:
    """Build the row of a number, and its true answer as a model would write it."""

    row: Callable[[int], dict[str, Any]]
    answer: Callable[[dict[str, Any]], str]


def _answer(row: dict[str, Any]) -> str:
    return str(row["answer"])


EXAMPLES = {
    "AI2D": Example(ai2d, lambda row: "ABCD"[int(row["answer"])] + ". it is"),
    "ChartQA": Example(chartqa, lambda row: str(1.04 * float(row["answer"]))),
    "OCRBench": Example(ocrbench, lambda row: f"It says {row['answer'][0]}!"),
    "TextVQA": Example(textvqa, lambda row: row["answers"][0].upper()),
    "MMBench": Example(mmbench, _answer),
    "POPE": Example(pope, lambda row: row["answer"].capitalize() + "."),
    "RealWorldQA": Example(realworldqa, _answer),
    "HRBench4K": Example(hrbench, lambda row: f"({row['answer']})"),
    "HRBench8K": Example(hrbench, _answer),
    "VStar": Example(vstar, lambda row: f"The answer is {row['label']}"),
    "MIABench": Example(mia_bench, lambda row: "A dog."),
    "ScienceQA": Example(scienceqa, lambda row: "ABC"[row["answer"]]),
}


def _feature(value: Any) -> Any:
    if isinstance(value, list):
        return List(_feature(value[0]))
    return Value("int64") if isinstance(value, int) else TEXT


def rows_of(name: str, n: int = N) -> list[dict[str, Any]]:
    return [EXAMPLES[name].row(i) for i in range(n)]


def write_parquet(name: str, path: Path, n: int = N) -> Path:
    """Write the rows of one benchmark, with the types of its data set on the hub."""
    rows = rows_of(name, n)
    features = {key: _feature(value) for key, value in rows[0].items()}
    if not isinstance(rows[0]["image"], str):
        features["image"] = Image()
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=Features(features)).to_parquet(path)
    return path


def write_all(folder: Path, n: int = N) -> Path:
    """Write all twelve, one file each, as `evaluate.data` expects them."""
    for name in BENCHMARKS:
        write_parquet(name, folder / f"{name}.parquet", n)
    return folder
