"""Windows cover all rows, in order, whatever files and row groups they lie in."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlace.measurements import windows
from interlace.measurements.windows import read_windows, windows_of


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


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(1, 9), st.integers(1, 9))
def test_windows_cover_every_row_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], group: int, size: int
) -> None:
    folders = stored(tmp_path_factory.mktemp("rows"), counts, group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "ROWS", size)
        found = windows_of(folders)
        rows = [row["n"] for _, part in read_windows(found) for row in part]
    assert rows == list(range(sum(counts)))
    assert [window.number for window in found] == list(range(len(found)))
    assert all(1 <= window.rows <= size for window in found)


def test_any_windows_can_be_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "ROWS", 3)
    found = windows_of(stored(tmp_path, [10, 5], 4))
    whole = {window.number: rows for window, rows in read_windows(found)}
    for part in (found[::2], found[1::3], found[-1:]):
        assert {window.number: rows for window, rows in read_windows(part)} == {
            window.number: whole[window.number] for window in part
        }
