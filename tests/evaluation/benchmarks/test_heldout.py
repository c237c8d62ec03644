from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_rows import text_row, vast
from models import rows

from interlace.errors import InputError
from interlace.evaluation.benchmarks.heldout import (
    check_questions,
    check_rows,
    is_exact_match,
    read_sources,
)

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("answer", "target", "same"),
    [
        (" Red. ", "red", True),
        ("3", "3.", True),
        ("Straße", "STRASSE", True),
        ("3.5", "35", False),
    ],
)
def test_exact_match_ignores_space_case_and_a_last_full_stop(
    answer: str, target: str, same: bool
) -> None:
    assert is_exact_match(answer, target) is same


def with_column(table: pa.Table, name: str, values: list[str | None]) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def test_an_unusable_file_is_named_with_column_and_row(write_rows: Write, tmp_path: Path) -> None:
    table, path = pq.read_table(write_rows(rows(3, source="a"))), tmp_path / "bad.parquet"
    path.write_text("not parquet")
    with pytest.raises(InputError, match=f"{path}: not a readable Parquet file"):
        check_questions(path)
    for changed, message in (
        (table.drop_columns(["source"]), "column 'source' is missing"),
        (with_column(table, "source", ["a", None, "a"]), "row 1, column 'source': empty"),
        (table[:0], "no rows"),
    ):
        pq.write_table(changed, path)
        with pytest.raises(InputError, match=f"^{path}: {message}"):
            check_questions(path)
            check_rows(path)


def test_a_file_without_images_is_accepted(write_rows: Write) -> None:
    path = write_rows(rows(3, source="a"))
    pq.write_table(with_column(pq.read_table(path), "images", [None] * 3), path)
    check_questions(path)
    assert check_rows(path) == ["a"]


@pytest.mark.slow
def test_over_two_gigabytes_of_images_are_read(tmp_path: Path) -> None:
    rows = read_sources(vast(tmp_path / "vast.parquet"))["made_up"]
    assert [row["texts"] for row in rows.select(["texts"]).to_pylist()] == [
        text_row(number)["texts"] for number in range(68)
    ]


def test_text_that_is_not_utf_8_is_named_with_its_rows(write_rows: Write, tmp_path: Path) -> None:
    table = pq.read_table(write_rows(rows(3)))
    raw = pa.array([b"a", b"\xff\xfe", b"a"])
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    path = tmp_path / "bad.parquet"
    pq.write_table(table.set_column(table.column_names.index("source"), "source", text), path)
    with pytest.raises(InputError, match=rf"^{path}, rows 0 to 2: .*utf-8"):
        check_rows(path)


def test_placeholders_are_removed_as_from_training_rows(write_rows: Write) -> None:
    turns = [
        {"user": "<image>\nRed < blue?", "assistant": "No"},
        {"user": " Sure<|image_pad|>", "assistant": " Yes"},
    ]
    plain, odd = text_row(0, "a"), text_row(0, "a") | {"texts": turns}
    path = write_rows([plain, odd])
    assert check_rows(path) == ["a"]
    texts = read_sources(path)["a"]["texts"].to_pylist()
    assert texts[0] == plain["texts"]
    assert texts[1] == [
        {"user": "Red < blue?", "assistant": "No"},
        {"user": "Sure", "assistant": " Yes"},
    ]


def test_a_question_that_is_only_a_placeholder_is_refused(write_rows: Write) -> None:
    bare = text_row(0, "a") | {"texts": [{"user": "<|image_pad|>", "assistant": "Yes"}]}
    with pytest.raises(InputError, match="turn 0 has an empty user text"):
        check_rows(write_rows([bare]))
