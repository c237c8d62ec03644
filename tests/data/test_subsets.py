"""Files are gathered into subsets; what is not FineVision's schema is named early."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_rows import stored, text_row, three_subsets

from interlace.data.files import DataFile, data_files
from interlace.data.subsets import CountedFile, check_subsets, outline, selected_subsets, subsets_of
from interlace.errors import InputError
from interlace.params.inputs import Data
from interlace.sources.pin import pin_data


def files(*names: str) -> list[DataFile]:
    return [DataFile(name, name, 1, name, io.BytesIO) for name in names]


def names(*paths: str) -> dict[str, list[str]]:
    return {s.name: [file.name for file in s.files] for s in subsets_of(files(*paths))}


def pinned(tmp_path: Path, source: Path) -> dict[str, Any]:
    return pin_data(str(source), None, field="data.id", hashes=tmp_path / "hashes.json")


def test_a_folder_is_a_subset() -> None:
    assert names("b/train-1.parquet", "a(x)/0.parquet", "b/train-0.parquet") == {
        "a(x)": ["a(x)/0.parquet"],
        "b": ["b/train-0.parquet", "b/train-1.parquet"],
    }


def test_a_file_outside_of_any_folder_is_a_subset() -> None:
    assert set(names("one.parquet", "two.parquet")) == {"one", "two"}


def test_shards_outside_of_any_folder_are_one_subset() -> None:
    assert len(names("train-00000-of-00002.parquet", "train-00001-of-00002.parquet")) == 1


def test_other_splits_are_left_alone() -> None:
    found = names(
        *("data/train-0.parquet", "data/test-0.parquet", "data/validation-0.parquet"),
        *("x/val-0.parquet", "test/y.parquet", "valleys/train-0.parquet", "testing/0.parquet"),
    )
    assert found == {
        "data": ["data/train-0.parquet"],
        "testing": ["testing/0.parquet"],
        "valleys": ["valleys/train-0.parquet"],
    }


def test_a_test_file_that_is_asked_for_by_itself_is_read() -> None:
    assert names("test.parquet") == {"test": ["test.parquet"]}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"subsets": ("chartqu",)}, r"data\.subsets: x has no subset 'chartqu'; did you mean char"),
        ({"weights": {"zzz": 2.0}}, r"data\.weights: x has no subset 'zzz'; there are ai2d, char"),
    ],
)
def test_an_unknown_subset_is_named(data: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        selected_subsets(files("chartqa/0.parquet", "ai2d/0.parquet"), Data(id="x", **data))


@pytest.mark.parametrize("column", ["images", "texts", "source"])
def test_a_missing_column_is_named_with_its_file(tmp_path: Path, column: str) -> None:
    data = three_subsets(tmp_path / "data")
    path = data / "b/train.parquet"
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    with pytest.raises(InputError, match=rf"b/train\.parquet: column '{column}' is missing"):
        check_subsets(pinned(tmp_path, data), Data(id="x"), checked=tmp_path / "checked.json")


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_text("not parquet")
    with pytest.raises(InputError, match=r"x\.parquet: not a readable Parquet file"):
        check_subsets(pinned(tmp_path, path), Data(id="x"), checked=tmp_path / "checked.json")


def test_a_file_outside_of_the_subsets_that_are_asked_for_is_not_looked_at(tmp_path: Path) -> None:
    data = three_subsets(tmp_path / "data")
    (data / "b/train.parquet").write_text("not parquet")
    check_subsets(
        pinned(tmp_path, data), Data(id="x", subsets=("a",)), checked=tmp_path / "checked.json"
    )


def test_an_outline_lists_the_row_groups_of_all_files(tmp_path: Path) -> None:
    for name, n in (("one", 25), ("two", 10)):
        stored(tmp_path / f"data/s/{name}.parquet", [text_row(i) for i in range(n)])
    (subset,) = subsets_of(data_files(pinned(tmp_path, tmp_path / "data")))
    found = outline(subset, tmp_path / "outlines")
    assert [(g.file, g.number, g.rows) for g in found.groups] == [
        *((0, 0, 10), (0, 1, 10), (0, 2, 5), (1, 0, 10))
    ]
    assert all(0 < group.size < 10_000 for group in found.groups)


def test_an_outline_is_remembered_until_a_file_changes(tmp_path: Path) -> None:
    path = stored(tmp_path / "x.parquet", [text_row(i) for i in range(25)])
    (subset,) = subsets_of(data_files(pinned(tmp_path, path)))
    first = outline(subset, tmp_path / "outlines")
    stored(path, [text_row(i) for i in range(35)])
    assert outline(subset, tmp_path / "outlines") == first  # the file is not opened
    (changed,) = subsets_of(data_files(pinned(tmp_path, path)))
    assert len(outline(changed, tmp_path / "outlines").groups) == 4


def test_a_damaged_outline_is_read_again(tmp_path: Path) -> None:
    path = stored(tmp_path / "x.parquet", [text_row(i) for i in range(25)])
    (subset,) = subsets_of(data_files(pinned(tmp_path, path)))
    first = outline(subset, tmp_path / "outlines")
    (remembered,) = (tmp_path / "outlines").iterdir()
    remembered.write_text('{"groups": [[')
    assert outline(subset, tmp_path / "outlines") == first


def test_bytes_are_counted_as_they_are_read() -> None:
    file = CountedFile(io.BytesIO(b"0123456789"))
    file.seek(4)
    assert file.read(3) + file.read() == b"456789"
    assert file.bytes_read == 6


def test_a_file_that_gives_less_than_asked_for_is_read_on(tmp_path: Path) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size, 3) if size and size > 0 else size)

    assert CountedFile(Slow(b"0123456789")).read(8) == b"01234567"


def test_a_schema_of_large_lists_is_as_good(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([text_row(0)])
    large = table.set_column(2, "source", table["source"].cast(pa.large_string()))
    pq.write_table(large, tmp_path / "x.parquet")
    check_subsets(
        pinned(tmp_path, tmp_path / "x.parquet"), Data(id="x"), checked=tmp_path / "checked.json"
    )
