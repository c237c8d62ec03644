"""ChartQA, TextVQA and ScienceQA are read as rows of FineVision."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from drawn_rows import PICTURE, Draw, Row, stored

from interlace.data.convert import converter
from interlace.errors import InputError
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


@pytest.mark.parametrize(
    ("name", "change", "answer"),
    [
        ("chartqa", {"label": "42.5"}, "42.5"),
        ("textvqa", {"answers": "stop sign"}, "stop sign"),
        (
            "textvqa",
            {"answers": [{"answer": a, "answer_id": i} for i, a in enumerate(["red", "b", "b"])]},
            "b",
        ),
        ("scienceqa", {"answer": "B"}, "B"),
        ("scienceqa", {"answer": "sand"}, "C"),
        ("scienceqa", {"answer": 2.0}, "C"),
    ],
)
def test_an_answer_may_be_a_text_a_struct_or_a_letter(
    tmp_path: Path, draw: Draw, name: str, change: Row, answer: str
) -> None:
    (row,) = draw(dataset(tmp_path, name, [CASES[name] | change]))
    assert row["texts"][0]["assistant"] == answer


def test_an_answer_that_names_several_choices_or_none_is_skipped(
    tmp_path: Path, draw: Draw
) -> None:
    unclear = [
        SCIENCE | {"choices": ["B", "A"], "answer": "A"},
        SCIENCE | {"answer": "1"},
        SCIENCE | {"choices": list("a" * 30), "answer": "29"},
    ]
    assert len(draw(dataset(tmp_path, "scienceqa", [SCIENCE | {"answer": "A"}, *unclear]))) == 1


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("chartqa", {"label": [3]}, r"'label' is list<.*int64>, not string or list<.*string>"),
        ("textvqa", {"answers": 3}, "'answers' is int64, not string or "),
        ("scienceqa", {"choices": "a, b"}, "'choices' is string, not list<item: string>"),
        ("scienceqa", {"answer": True}, "'answer' is bool, not number or string"),
    ],
)
def test_a_column_of_another_type_is_named(
    tmp_path: Path, draw: Draw, name: str, change: Row, complaint: str
) -> None:
    with pytest.raises(InputError, match=rf"\.parquet: column {complaint}"):
        draw(dataset(tmp_path, name, [CASES[name] | change]))


def test_a_set_that_shares_columns_with_a_benchmark_is_not_called_by_its_name(
    tmp_path: Path, draw: Draw
) -> None:
    columns = ("image", "question", "answers")
    rows = [{name: TEXT[name] for name in columns} | {"docId": 1}]
    assert draw(dataset(tmp_path, "documents", rows))[0]["source"] == "data"


def test_an_image_may_be_its_bytes_alone(tmp_path: Path, draw: Draw) -> None:
    rows = [CHART | {"image": PICTURE["bytes"]}]
    path = stored(tmp_path / "x.parquet", rows, schema=pa.Table.from_pylist(rows).schema)
    assert draw(path)[0]["images"] == [PICTURE]


def test_rows_that_have_texts_are_not_converted() -> None:
    assert converter(pa.schema([(name, pa.string()) for name in ("texts", *CHART)]), "x") is None


def test_a_science_question_without_hint_has_no_empty_line() -> None:
    convert = converter(pa.Table.from_pylist([SCIENCE]).schema, "x")
    assert convert is not None
    prompt = convert(SCIENCE | {"hint": ""})["texts"][0]["user"]
    assert prompt.startswith("Which is a gas?\nA. air")
