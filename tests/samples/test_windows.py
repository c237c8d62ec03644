"""Windows cover all rows, in order, whatever files and row groups they lie in."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlace.errors import InputError
from interlace.samples import windows
from interlace.samples.windows import read_windows, windows_of


def stored(folder: Path, counts: list[int], group: int) -> list[Path]:
    """Two folders of files with so many rows each, numbered throughout."""
    folders, begin = [folder / "a", folder / "b"], 0
    for number, count in enumerate(counts):
        path = folders[number > len(counts) // 2] / f"part-{number:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table({"n": pa.array(range(begin, begin + count), pa.int64())})
        pq.write_table(table, path, row_group_size=group)
        begin += count
    return folders


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(1, 9), st.integers(1, 9))
def test_windows_cover_every_row_once_in_order_and_can_be_read_alone(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], group: int, size: int
) -> None:
    folders = stored(tmp_path_factory.mktemp("rows"), counts, group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "ROWS", size)
        split = windows_of(folders)
    rows_by_window = [[row["n"] for row in rows] for _, rows in read_windows(split)]
    assert [n for rows in rows_by_window for n in rows] == list(range(sum(counts)))
    assert [window.number for window in split] == list(range(len(split)))
    assert [window.rows for window in split] == [len(rows) for rows in rows_by_window]
    assert all(1 <= window.rows <= size for window in split)
    for window, rows in read_windows(split[1::3]):
        assert [row["n"] for row in rows] == rows_by_window[window.number]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folders = stored(tmp_path, [5], 5)
    split, (path,) = windows_of(folders), folders[0].iterdir()
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes(60) + data[64:])
    with pytest.raises(InputError, match=r"part-00000.parquet, row group 0: not a readable"):
        list(read_windows(split))
    path.write_bytes(data[:-20])
    with pytest.raises(InputError, match=r"part-00000.parquet: not a readable Parquet file"):
        windows_of(folders)
