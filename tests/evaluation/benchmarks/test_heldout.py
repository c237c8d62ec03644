from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from models import rows

from interlace.errors import InputError
from interlace.evaluation.benchmarks.heldout import check_file, check_rows, is_exact_match
from interlace.samples.rows import TURN

Write = Callable[..., Path]
TURNS = pa.list_(TURN)
TURN_PAIR = {"user": "a", "assistant": "b"}


@pytest.mark.parametrize(
    ("answer", "target", "same"),
    [
        (" Red. ", "red", True),
        ("3", "3.", True),
        ("Straße", "STRASSE", True),
        ("3.5", "35", False),
        ("red red", "red", False),
        ("", "red", False),
    ],
)
def test_exact_match_ignores_space_case_and_a_last_full_stop(
    answer: str, target: str, same: bool
) -> None:
    assert is_exact_match(answer, target) is same


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("source", None, "column 'source' is missing"),
        ("source", pa.array([1, 2, 3]), "column 'source' is int64, not string"),
        ("texts", pa.array([""] * 3), "column 'texts' is string, not list"),
        ("images", pa.array([["a.png"]] * 3), "column 'images' is list<element: string>"),
        ("source", pa.array(["a", None, "a"]), "row 1, column 'source': empty"),
        ("texts", pa.array([[]] * 3, TURNS), "row 0, column 'texts': no turn"),
        (
            "texts",
            pa.array([[TURN_PAIR]] * 2 + [[TURN_PAIR | {"assistant": None}]], TURNS),
            "row 2, column 'texts': turn 0 has an empty assistant text",
        ),
    ],
)
def test_a_malformed_file_is_refused_with_column_and_row(
    column: str, values: Any, message: str, write_rows: Write
) -> None:
    path = write_rows(rows(3, source="a"))
    table = pq.read_table(path).drop_columns([column])
    pq.write_table(table if values is None else table.append_column(column, values), path)
    with pytest.raises(InputError) as error:
        check_file(path)
        check_rows(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)


def test_a_file_without_rows_is_refused(write_rows: Write) -> None:
    with pytest.raises(InputError, match="no rows"):
        check_rows(write_rows([]))


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    path.write_text("not parquet")
    with pytest.raises(InputError, match=f"{path}: not a Parquet file"):
        check_file(path)


def test_a_file_without_images_is_accepted(write_rows: Write) -> None:
    path = write_rows(rows(3, source="a"))
    table = pq.read_table(path).drop_columns(["images"])
    pq.write_table(table.append_column("images", pa.nulls(3)), path)
    check_file(path)
    assert check_rows(path) == ["a"]
