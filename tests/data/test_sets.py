"""The training set is a fair share of every subset, the same however it is drawn."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_rows import (
    INPUT_SCHEMA,
    Draw,
    ids,
    numbers,
    picture_row,
    stored,
    text_row,
    three_subsets,
)

from interlace.data import draw as drawing
from interlace.errors import InputError
from interlace.samples.rows import SCHEMA, iterate


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Draw:
    monkeypatch.setattr(drawing, "WAITS", (0.01, 0.01))
    return Draw(tmp_path / "out")


def test_every_subset_gives_its_exact_share_rounded_up(tmp_path: Path, draw: Draw) -> None:
    rows = draw(three_subsets(tmp_path / "data"), fraction=0.1)
    assert Counter(row["source"] for row in rows) == {"a": 20, "b": 5, "c": 1}


def test_a_weight_multiplies_a_subset_s_share_up_to_all_of_it(tmp_path: Path, draw: Draw) -> None:
    weights = {"a": 0.5, "b": 3.0, "c": 99.0}
    rows = draw(three_subsets(tmp_path / "data"), fraction=0.1, weights=weights)
    assert Counter(row["source"] for row in rows) == {"a": 10, "b": 15, "c": 7}


def test_subsets_can_be_chosen(tmp_path: Path, draw: Draw) -> None:
    rows = draw(three_subsets(tmp_path / "data"), subsets=("c", "a"))
    assert Counter(row["source"] for row in rows) == {"a": 200, "c": 7}


def test_all_rows_are_drawn_in_their_order_by_default(tmp_path: Path, draw: Draw) -> None:
    rows = [text_row(i) for i in range(40)]
    found = draw(stored(tmp_path / "x.parquet", rows))
    assert [row["texts"] for row in found] == [row["texts"] for row in rows]
    assert draw.drawn.rows == 40


def test_a_larger_fraction_holds_every_smaller_one(tmp_path: Path, draw: Draw) -> None:
    data = three_subsets(tmp_path / "data")
    drawn = [set(ids(draw(data, fraction=fraction))) for fraction in (0.005, 0.01, 0.03, 0.6, 1.0)]
    assert drawn[0] <= drawn[1] < drawn[2] < drawn[3] < drawn[4]


def test_another_seed_draws_other_rows(tmp_path: Path, draw: Draw) -> None:
    data = three_subsets(tmp_path / "data")
    assert ids(draw(data, fraction=0.1, seed=0)) != ids(draw(data, fraction=0.1, seed=1))


def test_the_draw_is_not_the_first_rows(tmp_path: Path, draw: Draw) -> None:
    path = stored(tmp_path / "x.parquet", [text_row(i) for i in range(400)])
    found = numbers(draw(path, fraction=0.1))
    assert max(found) > 300
    assert 120 < sum(found) / len(found) < 280


def test_files_of_a_subset_are_drawn_from_as_one(tmp_path: Path, draw: Draw) -> None:
    for k in range(4):
        rows = [text_row(i + 100 * k) for i in range(100)]
        stored(tmp_path / f"data/train-0000{k}-of-00004.parquet", rows)
    found = numbers(draw(tmp_path / "data", fraction=0.1))
    assert list(draw.drawn.subsets) == ["train"]
    assert set(Counter(n // 100 for n in found)) == {0, 1, 2, 3}
    assert len({n % 100 for n in found}) > 30  # other places in each


def test_only_the_row_groups_that_rows_are_drawn_of_are_read(tmp_path: Path, draw: Draw) -> None:
    rows = [picture_row(i) for i in range(300)]
    path = stored(tmp_path / "x.parquet", rows, group=10)
    draw(path, fraction=0.05)
    assert draw.drawn.bytes_read < path.stat().st_size * 0.05 * 3
    assert draw.drawn.bytes_read < 3 * draw.drawn.bytes_kept


@pytest.mark.parametrize("fraction", [0.1, 1.0])
def test_any_number_of_workers_writes_the_same_bytes(
    tmp_path: Path, draw: Draw, fraction: float
) -> None:
    data = three_subsets(tmp_path / "data")
    written = []
    for workers in (1, 4):
        draw(data, fraction=fraction, workers=workers)
        written.append((draw.digest(), draw.drawn))
    assert written[0] == written[1]


def test_where_the_files_lie_does_not_matter(tmp_path: Path, draw: Draw) -> None:
    here, there = three_subsets(tmp_path / "data"), three_subsets(tmp_path / "some/where/else")
    assert ids(draw(here, fraction=0.2)) == ids(draw(there, fraction=0.2))


def test_other_subsets_do_not_change_a_subset_s_draw(tmp_path: Path, draw: Draw) -> None:
    data = three_subsets(tmp_path / "data")
    alone = ids(draw(data, fraction=0.2, subsets=("a",)))
    assert alone == [row["sample_id"] for row in draw(data, fraction=0.2) if row["source"] == "a"]


def test_repeated_rows_are_left_out_and_counted(tmp_path: Path, draw: Draw) -> None:
    stored(tmp_path / "data/a.parquet", [text_row(0, "x"), text_row(1, "x")])
    stored(tmp_path / "data/b.parquet", [text_row(0, "x") | {"source": "y"}])
    assert [row["source"] for row in draw(tmp_path / "data")] == ["x", "x"]
    assert draw.drawn.left_out == {"repeated": 1}


def test_odd_rows_are_left_out_and_counted_and_the_others_kept(tmp_path: Path, draw: Draw) -> None:
    broken = [
        text_row(0) | {"texts": []},
        text_row(1, images=4),
        text_row(2) | {"images": [{"bytes": b"GIF?", "path": None}]},
    ]
    rows = draw(stored(tmp_path / "x.parquet", [*broken, text_row(3)]))
    assert numbers(rows) == [3]
    assert sum(draw.drawn.left_out.values()) == 3
    assert draw.drawn.subsets["x"] | {"bytes_read": 0} == {
        **{"holds": 4, "drawn": 4, "kept": 1, "bytes_read": 0}
    }


def test_text_that_is_not_utf_8_leaves_its_row_out(tmp_path: Path, draw: Draw) -> None:
    table = pa.Table.from_pylist([text_row(i) for i in range(5)], schema=INPUT_SCHEMA)
    raw = pa.array([f"{i}".encode() if i != 2 else b"\xff\xfe" for i in range(5)])
    text = pa.Array.from_buffers(pa.string(), 5, raw.buffers())
    turns = pa.StructArray.from_arrays([text, text], ["user", "assistant"])
    texts = pa.ListArray.from_arrays(pa.array(range(6), pa.int32()), turns)
    pq.write_table(table.set_column(1, "texts", texts), tmp_path / "x.parquet")
    assert numbers(draw(tmp_path / "x.parquet")) == [0, 1, 3, 4]
    assert draw.drawn.left_out == {"text that is not UTF-8": 1}


def test_written_rows_have_the_contract_s_columns(tmp_path: Path, draw: Draw) -> None:
    (row,) = draw(stored(tmp_path / "x.parquet", [text_row(0)]))
    (calibration,) = draw.calibration
    assert list(row) == list(calibration) == SCHEMA.names
    assert (row["domain"], row["task"]) == ("native", "native")


def test_ratings_are_carried_on(tmp_path: Path, draw: Draw) -> None:
    given = text_row(0) | {"relevance_ratings": [4], "relevance_min": 4}
    schema = pa.schema([SCHEMA.field(name) for name in given])
    (row,) = draw(stored(tmp_path / "x.parquet", [given], schema=schema))
    assert (row["relevance_ratings"], row["relevance_min"]) == ([4], 4)
    assert row["formatting_min"] is None


@pytest.mark.parametrize(
    ("n", "fraction", "wanted"), [(50, 0.1, 5), (59, 0.1, 5), (100, 0.29, 29), (3, 0.1, 1)]
)
def test_calibration_is_an_exact_share_of_the_training_rows(
    tmp_path: Path, draw: Draw, n: int, fraction: float, wanted: int
) -> None:
    path = stored(tmp_path / "x.parquet", [text_row(i) for i in range(n)])
    train = draw(path, calibration_fraction=fraction)
    assert len(draw.calibration) == draw.drawn.calibration == wanted
    assert all(row in train for row in draw.calibration)


def test_calibration_depends_on_the_seed(tmp_path: Path, draw: Draw) -> None:
    path = stored(tmp_path / "x.parquet", [text_row(i) for i in range(200)])
    chosen = []
    for seed in (0, 1):
        draw(path, seed=seed)
        chosen.append(ids(draw.calibration))
    assert chosen[0] != chosen[1]


def test_calibration_depends_on_content_not_on_order(tmp_path: Path, draw: Draw) -> None:
    rows = [text_row(i) for i in range(200)]
    chosen = []
    for name, listed in (("x", rows), ("y", rows[::-1])):
        draw(stored(tmp_path / f"{name}.parquet", listed))
        chosen.append(sorted(ids(draw.calibration)))
    assert chosen[0] == chosen[1]


def test_many_subsets_are_drawn_in_seconds(tmp_path: Path, draw: Draw) -> None:
    for k in range(185):
        stored(tmp_path / f"data/s{k:03}/train.parquet", [text_row(i, f"s{k}") for i in range(30)])
    begin = time.perf_counter()
    assert len(draw(tmp_path / "data", fraction=0.1)) == 185 * 3
    assert time.perf_counter() - begin < 20


def test_an_empty_data_set_is_refused(tmp_path: Path, draw: Draw) -> None:
    with pytest.raises(InputError, match="no rows were drawn: the data is empty"):
        draw(stored(tmp_path / "x.parquet", []))


def test_a_data_set_of_odd_rows_alone_is_refused_with_the_reason(
    tmp_path: Path, draw: Draw
) -> None:
    with pytest.raises(InputError, match="3 rows: more than 3 images"):
        draw(stored(tmp_path / "x.parquet", [text_row(i, images=4) for i in range(3)]))


def test_a_damaged_file_names_its_subset_and_keeps_the_others(tmp_path: Path, draw: Draw) -> None:
    data = three_subsets(tmp_path / "data")
    path = data / "c/train.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(InputError, match=r"^subset c: cannot be read .*; repair it and run the"):
        draw(data, workers=1)
    assert (draw.folder / "scratch/a/subset.json").is_file()
    assert not (draw.folder / "train").exists()


@pytest.mark.parametrize(("number", "tries"), [(errno.EIO, 3), (errno.EACCES, 1)])
def test_a_local_file_is_tried_again_only_where_that_may_help(
    tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch, number: int, tries: int
) -> None:
    data = stored(tmp_path / "x.parquet", [text_row(0)])
    times = 0

    def fail(*_: Any) -> None:
        nonlocal times
        times += 1
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(drawing, "outline", fail)
    with pytest.raises(InputError, match=r"^subset x: cannot be read"):
        draw(data)
    assert times == tries


def test_a_full_disk_is_one_line_and_what_was_drawn_is_kept(
    tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = three_subsets(tmp_path / "data")
    write, left = pq.ParquetWriter.write_table, [2]

    def full(*args: Any, **kwargs: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*args, **kwargs)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(InputError, match="No space left on device; free disk space") as caught:
        draw(data, workers=1)
    assert "\n" not in str(caught.value)
    assert (draw.folder / "scratch/a/subset.json").is_file()
    monkeypatch.undo()
    assert len(draw(data)) == 257


KILLED = """
import sys
from pathlib import Path
from drawn_rows import Draw
from interlace.data import draw
draw._CHUNK_BYTES = 20_000
Draw(Path(sys.argv[2]))(Path(sys.argv[1]), workers=2)
"""


def test_a_killed_draw_resumes_to_the_same_bytes(tmp_path: Path, draw: Draw) -> None:
    data = tmp_path / "data"
    for name in "abcd":
        rows = [picture_row(1000 * ord(name) + i, name) for i in range(150)]
        stored(data / f"{name}.parquet", rows)
    draw(data)
    wanted = draw.digest(), draw.drawn
    again = Draw(tmp_path / "again")
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(map(str, (root, root / "tests", root / "data/demo")))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(data), str(again.folder)],
        env=os.environ | {"PYTHONPATH": paths},
        stderr=subprocess.DEVNULL,
    )
    while len(list(again.folder.glob("scratch/*/0*"))) < 5:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in again.folder.glob("scratch/*/0*/rows/*")}
    assert kept
    assert not (again.folder / "train").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_CHUNK_BYTES", 20_000)
        patch.setattr("drawn_rows.remove", lambda _: None)  # to look at the chunks
        again(data)
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in kept.items())
    assert again.digest() == wanted[0]
    assert list(iterate(again.folder / "train")) == list(iterate(draw.folder / "train"))
