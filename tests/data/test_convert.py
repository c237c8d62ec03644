"""ChartQA, TextVQA and ScienceQA are read as rows of FineVision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_rows import Draw, picture

from interlace.data.convert import converter

IMAGE = {"bytes": picture(0), "path": None}
CHART = {"image": IMAGE, "query": "Which year?", "label": ["2004"], "human_or_machine": 0}
TEXT = {
    "image_id": "a",
    "question_id": 1,
    "question": "what brand?",
    "question_tokens": ["what"],
    "image": IMAGE,
    "image_width": 8,
    "answers": ["nokia", "nokia 3310", "nokia", "phone", "nokia 3310", "nokia"],
    "set_name": "train",
}
SCIENCE = {
    "image": None,
    "question": "Which is a gas?",
    "choices": ["air", "ice", "sand"],
    "answer": 0,
    "hint": "Think of a balloon.",
    "task": "closed choice",
    "lecture": "",
    "solution": "Air is a gas.",
}
CASES: dict[str, dict[str, Any]] = {"chartqa": CHART, "textvqa": TEXT, "scienceqa": SCIENCE}
WANTED = {
    "chartqa": ("Which year?\nGive the answer alone.", "2004"),
    "textvqa": ("what brand?\nGive the answer alone, in a few words.", "nokia"),
    "scienceqa": (
        "Think of a balloon.\nWhich is a gas?\nA. air\nB. ice\nC. sand\n"
        "Answer with the letter of the right choice.",
        "A",
    ),
}


def stored(folder: Path, name: str, rows: list[dict[str, Any]], split: str = "train") -> Path:
    path = folder / name / f"data/{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.Table.from_pylist(rows)
    images = pa.array([row["image"] for row in rows], image)
    pq.write_table(table.set_column(table.column_names.index("image"), "image", images), path)
    return folder / name


@pytest.mark.parametrize("name", CASES)
def test_a_benchmark_becomes_rows_of_finevision(tmp_path: Path, name: str) -> None:
    (row,) = Draw(tmp_path / "out")(stored(tmp_path, name, [CASES[name]]))
    assert row["texts"] == [dict(zip(("user", "assistant"), WANTED[name], strict=True))]
    assert row["source"] == name
    assert row["images"] == ([IMAGE] if CASES[name]["image"] else [])


@pytest.mark.parametrize("name", CASES)
def test_only_the_training_split_is_drawn(tmp_path: Path, name: str) -> None:
    other = {key: CASES[name][key] for key in CASES[name]}
    other["query" if name == "chartqa" else "question"] = "A test question?"
    stored(tmp_path, name, [other], split="test")
    stored(tmp_path, name, [other], split="val")
    rows = Draw(tmp_path / "out")(stored(tmp_path, name, [CASES[name]]))
    assert len(rows) == 1
    assert "test question" not in rows[0]["texts"][0]["user"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("chartqa", {"label": []}),
        ("chartqa", {"query": None}),
        ("textvqa", {"answers": None}),
        ("scienceqa", {"answer": 7}),
        ("scienceqa", {"answer": None}),
    ],
)
def test_a_row_without_question_or_answer_is_left_out(
    tmp_path: Path, name: str, change: dict[str, Any]
) -> None:
    draw = Draw(tmp_path / "out")
    rows = draw(stored(tmp_path, name, [CASES[name], CASES[name] | change]))
    assert len(rows) == 1
    assert sum(draw.drawn.left_out.values()) == 1


def test_finevision_is_not_converted() -> None:
    schema = pa.schema([("images", pa.null()), ("texts", pa.null()), ("question", pa.null())])
    assert converter(schema) is None


def test_a_science_question_without_hint_has_no_empty_line() -> None:
    convert = converter(pa.Table.from_pylist([SCIENCE]).schema)
    assert convert is not None
    asked = convert(SCIENCE | {"hint": ""})["texts"][0]["user"]
    assert asked.startswith("Which is a gas?\nA. air")
