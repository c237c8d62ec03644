"""Files are gathered into subsets; anything but FineVision's schema is named early."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_rows import text_row

from interlace.data.files import CountedFile, DataFile
from interlace.data.subsets import check_subsets, selected_subsets, subsets_of
from interlace.errors import InputError
from interlace.params.inputs import Data
from interlace.sources.pin import pin_data


def files(*names: str) -> list[DataFile]:
    return [DataFile(name, name, 1, name, io.BytesIO) for name in names]


def check(folder: Path, source: Path, **data: Any) -> None:
    pinned = pin_data(str(source), None, field="data.id", hashes=folder / "hashes.json")
    check_subsets(pinned, Data(id="x", **data), checked=folder / "checked.json")


@pytest.mark.parametrize(
    ("paths", "subsets"),
    [
        (
            ("b/train-1.parquet", "a(x)/0.parquet", "b/train-0.parquet"),
            {"a(x)": ["a(x)/0.parquet"], "b": ["b/train-0.parquet", "b/train-1.parquet"]},
        ),
        (("1.parquet", "2.parquet"), {"1": ["1.parquet"], "2": ["2.parquet"]}),
        (
            ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet"),
            {"train": ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]},
        ),
        (
            (
                *("data/train-0.parquet", "data/test-0.parquet", "data/validation-0.parquet"),
                *("x/val-0.parquet", "test/y.parquet", "valleys/train-0.parquet"),
                "testing/0.parquet",
            ),
            {
                "data": ["data/train-0.parquet"],
                "testing": ["testing/0.parquet"],
                "valleys": ["valleys/train-0.parquet"],
            },
        ),
        (("test.parquet",), {"test": ["test.parquet"]}),
    ],
    ids=["folders", "files", "shards", "other splits beside training", "a test split alone"],
)
def test_files_are_gathered_into_subsets(
    paths: tuple[str, ...], subsets: dict[str, list[str]]
) -> None:
    gathered = {s.name: [file.name for file in s.files] for s in subsets_of(files(*paths))}
    assert gathered == subsets


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"subsets": ("chartqu",)}, r"data\.subsets: .*'chartqu'; did you mean chartqa"),
        ({"weights": {"zzz": 2.0}}, r"data\.weights: .*'zzz'; there are ai2d, chartqa"),
    ],
)
def test_an_unknown_subset_is_named(data: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        selected_subsets(files("chartqa/0.parquet", "ai2d/0.parquet"), Data(id="x", **data))


@pytest.mark.parametrize("column", ["images", "texts", "source"])
def test_a_missing_column_is_named_with_its_file(
    tmp_path: Path, subsets: Path, column: str
) -> None:
    path = subsets / "b/train.parquet"
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    with pytest.raises(InputError, match=rf"b/train\.parquet: .*'{column}'"):
        check(tmp_path, subsets)


def test_a_file_that_is_not_parquet_is_named_if_its_subset_is_selected(
    tmp_path: Path, subsets: Path
) -> None:
    (subsets / "b/train.parquet").write_text("not parquet")
    check(tmp_path, subsets, subsets=("a",))
    with pytest.raises(InputError, match=r"b/train\.parquet: not a readable Parquet file"):
        check(tmp_path, subsets)


def test_large_types_pass(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([text_row(0)])
    large = table.set_column(2, "source", table["source"].cast(pa.large_string()))
    pq.write_table(large, tmp_path / "x.parquet")
    check(tmp_path, tmp_path / "x.parquet")


def test_bytes_are_counted_as_they_are_read() -> None:
    file = CountedFile(io.BytesIO(b"0123456789"))
    file.seek(4)
    assert file.read(3) + file.read() == b"456789"
    assert (file.bytes_read, file.tell()) == (6, 10)


def test_short_reads_are_continued() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size, 3) if size and size > 0 else size)

    assert CountedFile(Slow(b"0123456789")).read(8) == b"01234567"
