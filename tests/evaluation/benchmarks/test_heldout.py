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


def without(column: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([column])


def with_column(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    return lambda table: without(name)(table).append_column(name, values)


def change(path: Path, table: Callable[[pa.Table], pa.Table]) -> Path:
    pq.write_table(table(pq.read_table(path)), path)
    return path


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (without("source"), "column 'source' is missing"),
        (with_column("source", pa.array(["a", None, "a"])), "row 1, column 'source': empty"),
        (lambda table: table[:0], "no rows"),
    ],
)
def test_a_malformed_file_is_refused_with_column_and_row(
    table: Any, message: str, write_rows: Write
) -> None:
    path = change(write_rows(rows(3)), table)
    with pytest.raises(InputError, match=f"^{path}: {message}"):
        check_file(path)
        check_rows(path)


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    path.write_text("not parquet")
    with pytest.raises(InputError, match=f"{path}: not a Parquet file"):
        check_file(path)


def test_a_file_without_images_is_accepted(write_rows: Write) -> None:
    path = change(write_rows(rows(3, source="a")), with_column("images", pa.nulls(3)))
    check_file(path)
    assert check_rows(path) == ["a"]
