"""The outline of a subset lists its row groups, and is remembered."""

from __future__ import annotations

from pathlib import Path

from drawn_rows import stored, text_row

from interlace.data.files import data_files
from interlace.data.row_groups import Outline, outline
from interlace.data.subsets import subsets_of
from interlace.sources.pin import pin_data


def outline_of(tmp_path: Path, source: Path) -> Outline:
    hashes = tmp_path / "hashes.json"
    pinned = pin_data(str(source), None, field="data.id", hashes=hashes)
    (subset,) = subsets_of(data_files(pinned))
    return outline(subset, tmp_path / "outlines")


def test_row_groups_of_all_files_are_listed(tmp_path: Path) -> None:
    for name, n in (("one", 25), ("two", 10)):
        stored(tmp_path / f"data/s/{name}.parquet", [text_row(i) for i in range(n)])
    groups = outline_of(tmp_path, tmp_path / "data").groups
    assert [(group.file, group.number, group.rows) for group in groups] == [
        *((0, 0, 10), (0, 1, 10), (0, 2, 5), (1, 0, 10))
    ]
    assert all(0 < group.size < 10_000 for group in groups)


def test_an_outline_is_remembered_until_a_file_changes(tmp_path: Path) -> None:
    path = stored(tmp_path / "x.parquet", [text_row(i) for i in range(25)])
    pinned = pin_data(str(path), None, field="data.id", hashes=tmp_path / "hashes.json")
    (subset,) = subsets_of(data_files(pinned))
    first = outline(subset, tmp_path / "outlines")
    stored(path, [text_row(i) for i in range(35)])
    assert outline(subset, tmp_path / "outlines") == first  # the file is not opened
    assert len(outline_of(tmp_path, path).groups) == 4


def test_a_damaged_outline_is_read_again(tmp_path: Path) -> None:
    path = stored(tmp_path / "x.parquet", [text_row(i) for i in range(25)])
    first = outline_of(tmp_path, path)
    (cached,) = (tmp_path / "outlines").iterdir()
    cached.write_text('{"groups": [[')
    assert outline_of(tmp_path, path) == first
