"""A table of scores that is none is refused, in a line that names what is wrong with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interlace.errors import InputError
from interlace.scores.table import read_scores


def some_rows() -> list[dict[str, Any]]:
    return [
        {"criterion": "cosine", "first": first, "span": 1, "value": 0.5 + first / 10}
        for first in range(4)
    ]


@pytest.mark.parametrize("said", ["four", "-4", "4.0", ""])
def test_a_number_of_layers_that_is_none_is_refused(said: str) -> None:
    table = pa.Table.from_pylist(some_rows()).replace_schema_metadata({"n_layers": said})
    with pytest.raises(InputError, match=f"^scores: metadata n_layers = '{said}' is not a number"):
        read_scores(table)


def test_scores_beyond_the_last_layer_are_refused() -> None:
    table = pa.Table.from_pylist(some_rows()).replace_schema_metadata({"n_layers": "3"})
    with pytest.raises(InputError, match="n_layers = 3, but scores reach layer 3"):
        read_scores(table)


def refusal(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "scores.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(InputError) as caught:
        read_scores(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize("column", ["criterion", "first", "span", "value"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    rows = [{k: v for k, v in row.items() if k != column} for row in some_rows()]
    assert f"column '{column}' is missing" in refusal(tmp_path, rows)


@pytest.mark.parametrize(
    ("column", "other"), [("criterion", 1), ("first", "0"), ("span", 1.5), ("value", "0.5")]
)
def test_a_column_of_another_type_is_named(tmp_path: Path, column: str, other: Any) -> None:
    rows = [row | {column: other} for row in some_rows()]
    assert f"column '{column}' holds " in refusal(tmp_path, rows)


@pytest.mark.parametrize("place", [{"first": -1}, {"first": None}, {"span": 0}])
def test_a_row_without_a_place_is_named(tmp_path: Path, place: dict[str, Any]) -> None:
    rows = some_rows()
    rows[1] |= place
    assert "row 1: " in refusal(tmp_path, rows)


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_value_that_is_no_number_is_named_with_its_row(tmp_path: Path, value: Any) -> None:
    rows = some_rows()
    rows[2]["value"] = value
    assert "row 2: value" in refusal(tmp_path, rows)


def test_a_repeated_score_is_named_with_its_row(tmp_path: Path) -> None:
    rows = [*some_rows(), some_rows()[1]]
    assert "row 4: ('cosine', 1, 1) appears twice" in refusal(tmp_path, rows)


def test_an_empty_table_is_refused() -> None:
    empty = pa.Table.from_pylist(some_rows()).slice(0, 0)
    with pytest.raises(InputError, match="holds no scores"):
        read_scores(empty)


def test_a_missing_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; run `dvc repro score`"):
        read_scores(tmp_path / "scores.parquet")


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scores.parquet").write_text("hello")
    with pytest.raises(InputError, match="not a Parquet file"):
        read_scores(tmp_path / "scores.parquet")


def test_asking_for_a_span_that_was_not_measured_is_refused() -> None:
    scores = read_scores(pa.Table.from_pylist(some_rows()))
    with pytest.raises(InputError, match="no 'cosine' of 3"):
        scores.of_span(3)
