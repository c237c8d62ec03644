"""Rows have one schema, an id by their content, and lie in groups and files of bounded size."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_rows import INPUT_SCHEMA, Row, ids, picture, picture_row, text_row
from hypothesis import given, settings
from hypothesis import strategies as st

from interlace.errors import InputError
from interlace.samples import rows as samples
from interlace.samples.rows import check_row, check_schema, iterate, sample_id, write_rows


def with_ids(rows: list[Row]) -> list[Row]:
    return [row | {"sample_id": f"{number:016x}"} for number, row in enumerate(rows)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=3))
def test_an_id_depends_on_the_texts_and_where_they_are_cut(turns: list[tuple[str, str]]) -> None:
    row = {"images": [], "texts": [{"user": u, "assistant": a} for u, a in turns]}
    (user, assistant), *rest = turns
    shifted = [(user[:-1], user[-1] + assistant), *rest]
    other = {"images": [], "texts": [{"user": u, "assistant": a} for u, a in shifted]}
    assert sample_id(row) == sample_id(row | {"source": "elsewhere"})
    assert sample_id(row) != sample_id(other)


def test_an_id_depends_on_the_images_and_their_order_but_not_their_path() -> None:
    a, b = ({"bytes": picture(i), "path": None} for i in range(2))
    row = text_row(0)
    hashes = [sample_id(row | {"images": images}) for images in ([], [a], [a, b], [b, a])]
    assert len(set(hashes)) == 4
    assert sample_id(row | {"images": [a | {"path": "other.png"}]}) == hashes[1]


def test_ids_stay_what_they_were() -> None:
    row = {
        "images": [{"bytes": b"an image", "path": None}],
        "texts": [{"user": "How many?", "assistant": "Drei \u2713"}],
    }
    assert sample_id(row) == "64b778d8d70a9a49"


QUESTIONS = pa.list_(pa.struct([("question", pa.string()), ("answer", pa.string())]))


@pytest.mark.parametrize(
    ("column", "kind", "fault"),
    [
        *((column, None, "missing") for column in ("images", "texts", "source")),
        ("images", pa.list_(pa.string()), ".*, not "),
        ("texts", pa.string(), "string, not "),
        ("texts", QUESTIONS, ".*, not "),
        ("source", pa.int64(), "int64, not "),
    ],
)
def test_a_wrong_column_is_named_with_its_file(
    column: str, kind: pa.DataType | None, fault: str
) -> None:
    number = INPUT_SCHEMA.get_field_index(column)
    wrong = INPUT_SCHEMA.remove(number)
    if kind is not None:
        wrong = wrong.insert(number, pa.field(column, kind))
    with pytest.raises(InputError, match=rf"^x\.parquet: column '{column}' is {fault}"):
        check_schema(wrong, "x.parquet")


def test_large_strings_and_lists_are_as_good() -> None:
    turn = pa.struct([("user", pa.large_string()), ("assistant", pa.large_string())])
    kinds = {"texts": pa.large_list(turn), "source": pa.large_string()}
    check_schema(pa.schema([INPUT_SCHEMA.field("images"), *kinds.items()]), "x.parquet")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        *(({"texts": texts}, "'texts': no turns") for texts in ([], None)),
        ({"texts": [{"user": " ", "assistant": "a"}]}, "'texts': turn 0 .* user"),
        ({"texts": [{"user": "a", "assistant": None}]}, "'texts': turn 0 .* assistant"),
        ({"texts": [None]}, "'texts': turn 0"),
        *(({"source": source}, "'source': empty") for source in ("", None)),
    ],
)
def test_a_broken_row_is_named_with_its_place_and_column(change: Row, complaint: str) -> None:
    sound = text_row(0, turns=2, images=2)
    check_row(sound, "x.parquet: row 20")
    with pytest.raises(InputError, match=rf"x\.parquet: row 20, column {complaint}.*\Z"):
        check_row(sound | change, "x.parquet: row 20")


def test_rows_come_back_as_they_were_written_in_groups_of_256(tmp_path: Path) -> None:
    rows = with_ids([text_row(i, turns=1 + i % 3, images=i % 2) for i in range(600)])
    assert write_rows(iter(rows), tmp_path / "rows") == ids(rows)
    assert [{name: row[name] for name in rows[0]} for row in iterate(tmp_path / "rows")] == rows
    metadata = pq.read_metadata(tmp_path / "rows/part-00000.parquet")
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sizes == [256, 256, 88]


def test_files_and_row_groups_are_bounded_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_ROW_GROUP_BYTES", 200_000)
    monkeypatch.setattr(samples, "_SHARD_BYTES", 300_000)
    rows = with_ids([picture_row(i) for i in range(99)])
    write_rows(iter(rows), tmp_path / "rows")
    files = sorted((tmp_path / "rows").iterdir())
    assert len(files) > 2
    assert all(file.stat().st_size < 1_000_000 for file in files)
    assert ids(list(iterate(tmp_path / "rows"))) == ids(rows)
