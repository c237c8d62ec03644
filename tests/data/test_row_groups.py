"""The outline of a subset lists its row groups, and is remembered."""

from __future__ import annotations

from pathlib import Path

from drawn_rows import pinned, stored, text_row

from interlace.data.files import data_files
from interlace.data.row_groups import outline
from interlace.data.subsets import Subset, subsets_of


def subset_of(source: Path) -> Subset:
    (subset,) = subsets_of(data_files(pinned(source)))
    return subset


def test_row_groups_of_all_files_are_listed(tmp_path: Path) -> None:
    for name, n in (("one", 25), ("two", 10)):
        stored(tmp_path / f"data/s/{name}.parquet", [text_row(i) for i in range(n)])
    groups = outline(subset_of(tmp_path / "data"), tmp_path / "outlines").groups
    assert [(group.file, group.number, group.rows) for group in groups] == [
        *((0, 0, 10), (0, 1, 10), (0, 2, 5), (1, 0, 10))
    ]
    assert all(0 < group.size < 10_000 for group in groups)


def test_an_outline_is_remembered_until_it_is_damaged_or_a_file_changes(tmp_path: Path) -> None:
    path = stored(tmp_path / "x.parquet", [text_row(i) for i in range(25)])
    subset = subset_of(path)
    first = outline(subset, tmp_path / "outlines")
    content = path.read_bytes()
    path.write_bytes(b"not opened")
    assert outline(subset, tmp_path / "outlines") == first
    path.write_bytes(content)
    (cached,) = (tmp_path / "outlines").glob("*.json")
    cached.write_text('{"groups": [[')
    assert outline(subset, tmp_path / "outlines") == first
    stored(path, [text_row(i) for i in range(35)])
    assert len(outline(subset_of(path), tmp_path / "outlines").groups) == 4
