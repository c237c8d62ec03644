"""Rows have one schema, an id by their content, and lie in groups and files of bounded size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlace.errors import InputError
from interlace.samples import rows as samples
from interlace.samples.rows import (
    SCHEMA,
    check_row,
    check_schema,
    iterate,
    iterate_tables,
    sample_id,
    write_rows,
)

Row = dict[str, Any]
INPUT_SCHEMA = pa.schema([SCHEMA.field(name) for name in ("images", "texts", "source")])
PICTURE = models.picture(0, side=8)


def text_row(number: int, turns: int = 1, images: int = 0) -> Row:
    texts = [{"user": f"ask {number} {t}", "assistant": f"{number}"} for t in range(turns)]
    return {
        "images": [{"bytes": PICTURE, "path": None}] * images,
        "texts": texts,
        "source": "made_up",
        "sample_id": f"{number:016x}",
    }


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=3))
def test_an_id_depends_on_the_texts_and_where_they_are_cut(turns: list[tuple[str, str]]) -> None:
    row = {"images": [], "texts": [{"user": u, "assistant": a} for u, a in turns]}
    shifted = {"images": [], "texts": [dict(text) for text in row["texts"]]}
    shifted["texts"][0]["assistant"] = row["texts"][0]["user"][-1] + row["texts"][0]["assistant"]
    shifted["texts"][0]["user"] = row["texts"][0]["user"][:-1]
    assert sample_id(row) == sample_id(row | {"source": "elsewhere"})
    assert sample_id(row) != sample_id(shifted)


def test_an_id_depends_on_the_images_and_their_order_but_not_their_path() -> None:
    a, b = ({"bytes": models.picture(i, side=8), "path": None} for i in range(2))
    texts = text_row(0)["texts"]
    ids = [sample_id({"images": images, "texts": texts}) for images in ([], [a], [a, b], [b, a])]
    assert len(set(ids)) == 4
    assert sample_id({"images": [a | {"path": "other.png"}], "texts": texts}) == ids[1]


def test_ids_stay_what_they_were() -> None:
    row = {
        "images": [{"bytes": b"an image", "path": None}],
        "texts": [{"user": "How many?", "assistant": "Drei \u2713"}],
    }
    assert sample_id(row) == "64b778d8d70a9a49"


@pytest.mark.parametrize("column", ["images", "texts", "source"])
def test_a_missing_column_is_named_with_its_file(column: str) -> None:
    schema = INPUT_SCHEMA.remove(INPUT_SCHEMA.get_field_index(column))
    with pytest.raises(InputError, match=rf"^x\.parquet: column '{column}' is missing"):
        check_schema(schema, "x.parquet")


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("images", pa.list_(pa.string())),
        ("texts", pa.string()),
        ("texts", pa.list_(pa.struct([("question", pa.string()), ("answer", pa.string())]))),
        ("source", pa.int64()),
    ],
)
def test_a_column_of_another_type_is_named_with_its_file(column: str, kind: pa.DataType) -> None:
    schema = INPUT_SCHEMA.set(INPUT_SCHEMA.get_field_index(column), pa.field(column, kind))
    with pytest.raises(InputError, match=rf"^x\.parquet: column '{column}' is .*, not "):
        check_schema(schema, "x.parquet")


def test_large_strings_and_lists_are_as_good() -> None:
    turn = pa.struct([("user", pa.large_string()), ("assistant", pa.large_string())])
    schema = pa.schema(
        [
            INPUT_SCHEMA.field("images"),
            ("texts", pa.large_list(turn)),
            ("source", pa.large_string()),
        ]
    )
    check_schema(schema, "x.parquet")


BROKEN = {
    "no turns": ({"texts": []}, "'texts': no turns"),
    "null turns": ({"texts": None}, "'texts': no turns"),
    "empty question": ({"texts": [{"user": " ", "assistant": "a"}]}, "'texts': turn 0 .* user"),
    "null answer": ({"texts": [{"user": "a", "assistant": None}]}, "'texts': turn 0 .* assistant"),
    "null turn": ({"texts": [None]}, "'texts': turn 0"),
    "empty source": ({"source": ""}, "'source': empty"),
    "null source": ({"source": None}, "'source': empty"),
    "no image": ({"images": [{"bytes": b"GIF?", "path": None}]}, "'images': image 0"),
    "null image": ({"images": [{"bytes": None, "path": "a.png"}]}, "'images': image 0"),
    "cut image": ({"images": [{"bytes": PICTURE[:60], "path": None}]}, "'images': image 0"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_row_is_named_with_its_place_and_column(case: str) -> None:
    change, complaint = BROKEN[case]
    with pytest.raises(InputError, match=rf"x\.parquet: row 20, column {complaint}") as caught:
        check_row(text_row(20) | change, "x.parquet: row 20")
    assert "\n" not in str(caught.value)


def test_a_sound_row_passes() -> None:
    check_row(text_row(0, images=2, turns=2), "here")


def test_rows_come_back_as_they_were_written_in_groups_of_256(tmp_path: Path) -> None:
    rows = [text_row(i, turns=1 + i % 3, images=i % 2) for i in range(600)]
    assert write_rows(iter(rows), tmp_path / "rows") == [row["sample_id"] for row in rows]
    found = [{name: row[name] for name in rows[0]} for row in iterate(tmp_path / "rows")]
    assert found == rows
    metadata = pq.read_metadata(tmp_path / "rows/part-00000.parquet")
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sizes == [256, 256, 88]


def test_files_and_row_groups_are_bounded_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_ROW_GROUP_BYTES", 200_000)
    monkeypatch.setattr(samples, "_SHARD_BYTES", 300_000)
    rows = [
        text_row(i) | {"images": [{"bytes": models.picture(i), "path": None}]} for i in range(99)
    ]
    write_rows(iter(rows), tmp_path / "rows")
    files = sorted((tmp_path / "rows").iterdir())
    assert len(files) > 2
    assert all(file.stat().st_size < 1_000_000 for file in files)
    assert [row["sample_id"] for row in iterate(tmp_path / "rows")] == [
        r["sample_id"] for r in rows
    ]


def test_no_rows_are_one_file_with_the_schema(tmp_path: Path) -> None:
    write_rows(iter(()), tmp_path / "rows")
    assert pq.read_schema(tmp_path / "rows/part-00000.parquet").equals(SCHEMA)
    assert list(iterate(tmp_path / "rows")) == []


def test_rows_that_fail_halfway_leave_the_last_version(tmp_path: Path) -> None:
    write_rows(iter([text_row(0)]), tmp_path / "rows")

    def failing() -> Any:
        yield text_row(1)
        raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        write_rows(failing(), tmp_path / "rows")
    assert [row["sample_id"] for row in iterate(tmp_path / "rows")] == [f"{0:016x}"]


def test_columns_can_be_read_alone(tmp_path: Path) -> None:
    write_rows((text_row(i, images=2) for i in range(3)), tmp_path / "rows")
    (table,) = iterate_tables(tmp_path / "rows", ["images.list.element.path"])
    assert table.to_pylist() == [{"images": [{"path": None}] * 2}] * 3
