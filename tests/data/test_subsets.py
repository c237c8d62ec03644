"""Files are gathered into subsets; anything but FineVision's schema is named early."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawn_rows import INPUT_SCHEMA, pinned, stored, text_row

from interlace.data.files import CountedFile, DataFile
from interlace.data.subsets import check_subsets, selected_subsets, subsets_of
from interlace.errors import InputError
from interlace.params.inputs import Data


def files(*names: str) -> list[DataFile]:
    return [DataFile(name, name, 1, name, io.BytesIO) for name in names]


def check(source: Path, **data: Any) -> None:
    check_subsets(pinned(source), Data(id="x", **data), checked=source.parent / "checked.json")


@pytest.mark.parametrize(
    ("paths", "subsets"),
    [
        ("b/train-1 a(x)/0 b/train-0", {"a(x)": ["a(x)/0"], "b": ["b/train-0", "b/train-1"]}),
        ("1 2", {"1": ["1"], "2": ["2"]}),
        (
            "train-00000-of-00002 train-00001-of-00002",
            {"train": ["train-00000-of-00002", "train-00001-of-00002"]},
        ),
        (
            "data/train-0 data/test-0 data/validation-0 x/val-0 test/y valleys/train-0 testing/0",
            {"data": ["data/train-0"], "testing": ["testing/0"], "valleys": ["valleys/train-0"]},
        ),
        ("test", {"test": ["test"]}),
    ],
    ids=["folders", "files", "shards", "other splits beside training", "a test split alone"],
)
def test_files_are_gathered_into_subsets(paths: str, subsets: dict[str, list[str]]) -> None:
    names = [f"{path}.parquet" for path in paths.split()]
    gathered = {s.name: [file.name for file in s.files] for s in subsets_of(files(*names))}
    assert gathered == {
        name: [f"{path}.parquet" for path in paths] for name, paths in subsets.items()
    }


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


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: stored(path, [text_row(0)], schema=INPUT_SCHEMA.remove(1)),
        lambda path: path.write_text("not parquet"),
    ],
    ids=["a missing column", "no Parquet"],
)
def test_a_file_that_cannot_be_drawn_from_is_named_if_its_subset_is_selected(
    subsets: Path, damage: Callable[[Path], Any]
) -> None:
    damage(subsets / "b/train.parquet")
    check(subsets, subsets=("a",))
    with pytest.raises(InputError, match=r"b/train\.parquet: (column 'texts'|not a readable)"):
        check(subsets)


def test_short_reads_are_continued_and_counted() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size, 3) if size and size > 0 else size)

    file = CountedFile(Slow(b"0123456789"))
    file.seek(1)
    assert file.read(5) + file.read() == b"123456789"
    assert (file.bytes_read, file.tell()) == (9, 10)
