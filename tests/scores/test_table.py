"""A broken table of scores is refused, in a line that names what is wrong with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interlace.errors import InputError, MissingInputError
from interlace.scores.table import read_scores

ROWS: list[dict[str, Any]] = [
    {"criterion": "cosine", "first": first, "span": 1, "value": 0.5 + first / 10}
    for first in range(4)
]


def with_layers(n_layers: str) -> pa.Table:
    return pa.Table.from_pylist(ROWS).replace_schema_metadata({"n_layers": n_layers})


def test_the_decoder_ends_with_the_last_span_unless_the_metadata_say_otherwise() -> None:
    scores = read_scores(pa.Table.from_pylist([*ROWS, ROWS[3] | {"span": 2}]))
    assert (scores.n_layers, scores.deepstack_layers, scores.kept_layers) == (5, 0, ())
    assert read_scores(with_layers("6")).n_layers == 6
    assert read_scores(scores) is scores


@pytest.mark.parametrize("value", ["four", "-4", "4.0", "", "3"])
def test_a_wrong_number_of_layers_is_named(value: str) -> None:
    with pytest.raises(InputError, match=f"^scores: metadata n_layers = '?{value}"):
        read_scores(with_layers(value))


@pytest.mark.parametrize(
    ("number", "changes", "complaint"),
    [
        (None, {"criterion": 1}, "column 'criterion' holds "),
        (None, {"first": "0"}, "column 'first' holds "),
        (None, {"span": 1.5}, "column 'span' holds "),
        (None, {"value": "0.5"}, "column 'value' holds "),
        (1, {"first": -1}, "row 1: "),
        (1, {"first": None}, "row 1: "),
        (1, {"span": 0}, "row 1: "),
        (2, {"value": math.nan}, "row 2: value nan"),
        (2, {"value": math.inf}, "row 2: value inf"),
        (2, {"value": None}, "row 2: value None"),
        (3, {"first": 1}, "row 3: ('cosine', 1, 1) appears twice"),
    ],
)
def test_a_wrong_value_is_named_with_its_row_or_column(
    tmp_path: Path, number: int | None, changes: dict[str, Any], complaint: str
) -> None:
    rows = [row | changes if number in (None, i) else row for i, row in enumerate(ROWS)]
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(InputError) as caught:
        read_scores(path)
    assert str(caught.value).startswith(f"{path}: {complaint}")


@pytest.mark.parametrize("field", ["n_layers", "deepstack_layers"])
def test_metadata_that_score_writes_must_be_there(tmp_path: Path, field: str) -> None:
    path, metadata = tmp_path / "scores.parquet", {"n_layers": "4", "deepstack_layers": "0"}
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table.replace_schema_metadata(metadata), path)
    assert read_scores(path, by_score=True).n_layers == 4
    pq.write_table(
        table.replace_schema_metadata({k: v for k, v in metadata.items() if k != field}), path
    )
    with pytest.raises(MissingInputError, match=f"metadata {field} is missing"):
        read_scores(path, by_score=True)


@pytest.mark.parametrize(
    "metadata",
    [
        {"n_layers": "99999999"},
        {"n_layers": "\u0664"},
        {b"n_layers": b"\xff"},
        {"kept": "0 one"},
        {"deepstack_layers": "-1"},
    ],
)
def test_metadata_that_are_no_numbers_of_layers_are_refused(metadata: dict[Any, Any]) -> None:
    with pytest.raises(InputError, match=r"^scores: metadata \w+ = "):
        read_scores(pa.Table.from_pylist(ROWS).replace_schema_metadata(metadata))


def test_a_layer_that_no_decoder_has_is_refused() -> None:
    with pytest.raises(InputError, match="scores reach layer 2147483646"):
        read_scores(pa.Table.from_pylist([ROWS[0] | {"first": 2**31 - 2}]))


@pytest.mark.parametrize(("gone", "mode"), [(0, "residual"), (2, "reference"), (3, "residual")])
def test_rows_that_are_missing_are_named(gone: int, mode: str) -> None:
    table = pa.Table.from_pylist([row for row in ROWS if row["first"] != gone])
    scores = read_scores(table.replace_schema_metadata({"n_layers": "4", "mode": mode}))
    with pytest.raises(InputError, match=f"no 'cosine' of 1 layer.* from layer {gone} on"):
        scores.of_span(1)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InputError, match=r"^scores: column 'span' is missing"):
        read_scores(pa.Table.from_pylist(ROWS).drop_columns(["span"]))


def test_a_file_without_scores_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    with pytest.raises(InputError, match=r"scores\.parquet: no such file"):
        read_scores(path)
    path.write_text("hello")
    with pytest.raises(InputError, match=r"scores\.parquet: not a Parquet file"):
        read_scores(path)
    with pytest.raises(InputError, match="holds no scores"):
        read_scores(pa.Table.from_pylist(ROWS).slice(0, 0))


def test_a_span_that_was_not_measured_is_named() -> None:
    with pytest.raises(InputError, match="no 'cosine' of 3"):
        read_scores(pa.Table.from_pylist(ROWS)).of_span(3)


KINDS = '{"decoder": "gemma3_text", "fields": {"layer_types": ["a", "b", "a", "b"]}}'


def test_the_kinds_of_layers_are_read_from_the_metadata() -> None:
    table = pa.Table.from_pylist(ROWS).replace_schema_metadata({"layer_kinds": KINDS})
    kinds = read_scores(table).layer_kinds
    assert kinds is not None and kinds.fields == {"layer_types": ("a", "b", "a", "b")}
    assert kinds.period == 2


@pytest.mark.parametrize("kinds", ["", "[]", "{}", KINDS.replace('["a", ', "[")])
def test_damaged_kinds_of_layers_are_refused_in_one_line(kinds: str) -> None:
    table = pa.Table.from_pylist(ROWS).replace_schema_metadata({"layer_kinds": kinds})
    with pytest.raises(InputError, match=r"^scores: [^\n]+$"):
        read_scores(table)
