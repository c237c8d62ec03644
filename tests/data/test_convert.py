"""ChartQA, TextVQA and ScienceQA are read as rows of FineVision."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from drawn_rows import PICTURE, Draw, Row, stored

from interlace.data.convert import converter
from interlace.samples.rows import IMAGE

CHART = {"image": PICTURE, "query": "Which year?", "label": ["2004"], "human_or_machine": 0}
TEXT = {
    "question": "what brand?",
    "image": PICTURE,
    "answers": ["nokia 3310", "nokia", "phone", "nokia", "nokia 3310", "nokia"],
    "ocr_tokens": ["nokia"],
}
SCIENCE = {
    "image": None,
    "question": "Which is a gas?",
    "choices": ["air", "ice", "sand"],
    "answer": 0,
    "hint": "Think of a balloon.",
    "lecture": "Matter has three states.",
}
CASES: dict[str, Row] = {"chartqa": CHART, "textvqa": TEXT, "scienceqa": SCIENCE}
TURNS = {
    "chartqa": ("Which year?\nGive the answer alone.", "2004"),
    "textvqa": ("what brand?\nGive the answer alone, in a few words.", "nokia"),
    "scienceqa": (
        "Think of a balloon.\nWhich is a gas?\nA. air\nB. ice\nC. sand\n"
        "Answer with the letter of the right choice.",
        "A",
    ),
}


def dataset(folder: Path, name: str, rows: list[Row], split: str = "train") -> Path:
    """Add a split to a folder of the data set."""
    schema = pa.Table.from_pylist(rows).schema
    image = schema.get_field_index("image")
    path = folder / name / f"data/{split}-00000-of-00001.parquet"
    stored(path, rows, schema=schema.set(image, pa.field("image", IMAGE)))
    return folder / name


@pytest.mark.parametrize("name", CASES)
def test_the_training_split_becomes_rows_of_finevision(
    tmp_path: Path, draw: Draw, name: str
) -> None:
    question = "query" if name == "chartqa" else "question"
    for split in ("test", "val"):
        dataset(tmp_path, name, [CASES[name] | {question: "A test question?"}], split)
    (row,) = draw(dataset(tmp_path, name, [CASES[name]]))
    assert row["texts"] == [dict(zip(("user", "assistant"), TURNS[name], strict=True))]
    assert row["source"] == name
    assert row["images"] == ([PICTURE] if CASES[name]["image"] else [])


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
def test_a_row_without_question_or_answer_is_skipped(
    tmp_path: Path, draw: Draw, name: str, change: Row
) -> None:
    assert len(draw(dataset(tmp_path, name, [CASES[name], CASES[name] | change]))) == 1
    assert sum(draw.counts.left_out.values()) == 1


def test_rows_that_have_texts_are_not_converted() -> None:
    assert converter(pa.schema([(name, pa.string()) for name in ("texts", *CHART)]), "x") is None


def test_a_science_question_without_hint_has_no_empty_line() -> None:
    convert = converter(pa.Table.from_pylist([SCIENCE]).schema, "x")
    assert convert is not None
    prompt = convert(SCIENCE | {"hint": ""})["texts"][0]["user"]
    assert prompt.startswith("Which is a gas?\nA. air")
