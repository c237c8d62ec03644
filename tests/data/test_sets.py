"""The training set is a fair share of every subset, the same in every run."""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_rows import (
    INPUT_SCHEMA,
    Draw,
    Row,
    ids,
    numbers,
    picture_row,
    stored,
    text_row,
    three_subsets,
    vast,
)
from interruptions import damage

from interlace.data import draw as drawing
from interlace.errors import InputError
from interlace.samples.rows import IMAGE, SCHEMA, TURN


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        ({"fraction": 0.1}, {"a": 20, "b": 5, "c": 1}),
        ({"fraction": 0.1, "weights": {"a": 0.5, "b": 3, "c": 99}}, {"a": 10, "b": 15, "c": 7}),
        ({"subsets": ("c", "a")}, {"a": 200, "c": 7}),
    ],
    ids=["rounded up", "weighted, at most all", "selected"],
)
def test_every_subset_gives_its_exact_share(
    subsets: Path, draw: Draw, data: dict[str, Any], rows: dict[str, int]
) -> None:
    assert Counter(row["source"] for row in draw(subsets, **data)) == rows


def test_all_rows_are_drawn_in_their_order_by_default(tmp_path: Path, draw: Draw) -> None:
    rows = [text_row(i) for i in range(40)]
    train = draw(stored(tmp_path / "x.parquet", rows))
    assert [row["texts"] for row in train] == [row["texts"] for row in rows]
    assert draw.counts.rows == 40


def test_files_of_a_subset_are_drawn_from_as_one(tmp_path: Path, draw: Draw) -> None:
    for k in range(4):
        rows = [text_row(i + 100 * k) for i in range(100)]
        stored(tmp_path / f"data/train-0000{k}-of-00004.parquet", rows)
    train = numbers(draw(tmp_path / "data", fraction=0.1))
    assert list(draw.counts.subsets) == ["train"]
    assert {n // 100 for n in train} == {0, 1, 2, 3}
    assert len({n % 100 for n in train}) > 30  # other rows in each file


def test_only_the_row_groups_of_drawn_rows_are_read(tmp_path: Path, draw: Draw) -> None:
    path = stored(tmp_path / "x.parquet", [picture_row(i) for i in range(300)], group=10)
    draw(path, fraction=0.05)
    assert draw.counts.bytes_read < path.stat().st_size * 0.05 * 3
    assert draw.counts.bytes_read < 3 * draw.counts.bytes_kept


def test_any_number_of_workers_writes_the_same_bytes(subsets: Path, draw: Draw) -> None:
    outputs = []
    for workers in (1, 4):
        draw(subsets, fraction=0.1, workers=workers)
        outputs.append((draw.digest(), draw.counts))
    assert outputs[0] == outputs[1]


def test_a_subset_s_draw_depends_on_the_seed_but_not_on_its_location_or_other_subsets(
    tmp_path: Path, subsets: Path, draw: Draw
) -> None:
    alone = ids(draw(three_subsets(tmp_path / "some/where"), fraction=0.2, subsets=("a",)))
    together = draw(subsets, fraction=0.2)
    assert alone == ids([row for row in together if row["source"] == "a"])
    assert alone != ids(draw(subsets, fraction=0.2, subsets=("a",), seed=1))


def test_repeated_rows_are_skipped_and_counted(tmp_path: Path, draw: Draw) -> None:
    stored(tmp_path / "data/a.parquet", [text_row(0, "x"), text_row(1, "x")])
    stored(tmp_path / "data/b.parquet", [text_row(0, "x") | {"source": "y"}])
    assert [row["source"] for row in draw(tmp_path / "data")] == ["x", "x"]
    assert draw.counts.left_out == {"repeated": 1}


def test_drawn_and_kept_rows_are_counted(tmp_path: Path, draw: Draw) -> None:
    rows = [text_row(0) | {"texts": []}, text_row(1, images=4), *map(text_row, range(2, 10))]
    draw(stored(tmp_path / "x.parquet", rows))
    counts = draw.counts.subsets["x"]
    assert (counts["holds"], counts["drawn"], counts["kept"]) == (10, 10, 8)
    assert sum(draw.counts.left_out.values()) == 2


def test_subsets_with_names_of_255_bytes_are_drawn_apart(tmp_path: Path, draw: Draw) -> None:
    names = ["多" * 85, "é" * 127 + "a", "é" * 127 + "b"]
    for number, name in enumerate(names):
        stored(tmp_path / "data" / name / "x.parquet", [text_row(number)])
    assert sorted(numbers(draw(tmp_path / "data"))) == [0, 1, 2]


@pytest.mark.parametrize(
    "source",
    [
        pa.array(["made_up"] * 3).dictionary_encode(),
        pa.array(["made_up"] * 3, pa.string_view()),
        pa.nulls(3),
        None,
    ],
    ids=["dictionary", "view", "null", "missing"],
)
def test_a_source_may_have_any_encoding_or_none(
    tmp_path: Path, draw: Draw, source: pa.Array | None
) -> None:
    rows = [text_row(i, images=1) for i in range(3)]
    columns = {
        "images": pa.array([row["images"] for row in rows], pa.list_(IMAGE, 1)),
        "texts": pa.array([row["texts"] for row in rows], pa.large_list(TURN)),
    }
    table = pa.table(columns | ({} if source is None else {"source": source}))
    pq.write_table(table, tmp_path / "x.parquet")
    named = source is not None and source.null_count == 0
    train = draw(tmp_path / "x.parquet", fraction=0.5)
    assert [row["source"] for row in train] == ["made_up" if named else "x"] * 2


def test_a_row_whose_text_is_not_utf_8_is_skipped(tmp_path: Path, draw: Draw) -> None:
    table = pa.Table.from_pylist([text_row(i) for i in range(5)], schema=INPUT_SCHEMA)
    raw = pa.array([f"{i}".encode() if i != 2 else b"\xff\xfe" for i in range(5)])
    text = pa.Array.from_buffers(pa.string(), 5, raw.buffers())
    turns = pa.StructArray.from_arrays([text, text], ["user", "assistant"])
    texts = pa.ListArray.from_arrays(pa.array(range(6), pa.int32()), turns)
    pq.write_table(table.set_column(1, "texts", texts), tmp_path / "x.parquet")
    assert numbers(draw(tmp_path / "x.parquet")) == [0, 1, 3, 4]
    assert draw.counts.left_out == {"text that is not UTF-8": 1}


def test_both_sets_have_the_contract_s_columns_and_ratings(tmp_path: Path, draw: Draw) -> None:
    rated = text_row(0) | {"relevance_ratings": [4], "relevance_min": 4}
    schema = pa.schema([SCHEMA.field(name) for name in rated])
    (row,) = draw(stored(tmp_path / "x.parquet", [rated], schema=schema))
    assert list(row) == list(draw.calibration[0]) == SCHEMA.names
    assert (row["domain"], row["task"]) == ("native", "native")
    assert (row["relevance_ratings"], row["relevance_min"]) == ([4], 4)
    assert row["formatting_min"] is None


@pytest.mark.parametrize(
    ("n", "fraction", "count"), [(50, 0.1, 5), (59, 0.1, 5), (100, 0.29, 29), (3, 0.1, 1)]
)
def test_calibration_is_an_exact_share_of_the_training_rows(
    tmp_path: Path, draw: Draw, n: int, fraction: float, count: int
) -> None:
    path = stored(tmp_path / "x.parquet", [text_row(i) for i in range(n)])
    train = draw(path, calibration_fraction=fraction)
    assert len(draw.calibration) == draw.counts.calibration == count
    assert all(row in train for row in draw.calibration)


def test_calibration_depends_on_seed_and_content_but_not_on_order(
    tmp_path: Path, draw: Draw
) -> None:
    rows = [text_row(i) for i in range(200)]
    calibration = []
    for name, order, seed in (("x", rows, 0), ("y", rows[::-1], 0), ("x", rows, 1)):
        draw(stored(tmp_path / f"{name}.parquet", order), seed=seed)
        calibration.append(sorted(ids(draw.calibration)))
    assert calibration[0] == calibration[1] != calibration[2]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [([], "the data is empty"), ([text_row(0, images=4)] * 3, "3 rows: more than 3 images")],
    ids=["empty", "odd rows alone"],
)
def test_a_draw_without_rows_is_refused_with_the_reason(
    tmp_path: Path, draw: Draw, rows: list[Row], reason: str
) -> None:
    with pytest.raises(InputError, match=f"^data.id = .*no rows were drawn.*{reason}"):
        draw(stored(tmp_path / "x.parquet", rows))


def test_a_damaged_page_names_its_file_and_row_group_and_keeps_other_subsets(
    subsets: Path, draw: Draw
) -> None:
    path = stored(subsets / "c/train.parquet", [text_row(i) for i in range(20)])
    page = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    with path.open("r+b") as file:
        file.seek(page)
        file.write(b"\xff" * 20)
    with pytest.raises(InputError, match=r"^subset c: .*c/train\.parquet, row group 1 .*repair"):
        draw(subsets, workers=1)
    assert (draw.folder / "scratch/a/subset.json").is_file()
    assert not (draw.folder / "train").exists()


@pytest.mark.parametrize(("number", "tries"), [(errno.EIO, 3), (errno.EACCES, 1)])
def test_a_local_file_is_tried_again_only_after_passing_errors(
    tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch, number: int, tries: int
) -> None:
    attempts: list[Any] = []

    def fail(*arguments: Any) -> None:
        attempts.append(arguments)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(drawing, "outline", fail)
    with pytest.raises(InputError, match=r"^subset x: cannot be read"):
        draw(stored(tmp_path / "x.parquet", [text_row(0)]))
    assert len(attempts) == tries


def test_a_draw_resumes_after_a_full_disk_to_the_same_bytes(
    tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        stored(tmp_path / f"data/{name}.parquet", [picture_row(i, name) for i in range(60)])
    draw(tmp_path / "data")
    resumed = Draw(tmp_path / "resumed")
    monkeypatch.setattr("drawn_rows.remove", lambda _: None)  # to look at the chunks
    monkeypatch.setattr(drawing, "_CHUNK_BYTES", 200_000)
    write, writes = pq.ParquetWriter.write_table, []

    def full(*args: Any, **kwargs: Any) -> None:
        writes.append(args)
        if len(writes) > 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(InputError, match=r"No space left on device; free disk space.*\Z"):
            resumed(tmp_path / "data", workers=2)
    chunks = {path: path.stat().st_mtime_ns for path in resumed.folder.glob("scratch/*/0*/rows/*")}
    assert chunks and not (resumed.folder / "train").exists()
    (resumed.folder / "scratch/c/.00004.partial").mkdir(parents=True)  # as a killed run leaves it
    resumed(tmp_path / "data")
    assert all(path.stat().st_mtime_ns == time for path, time in chunks.items())
    assert resumed.digest() == draw.digest()
    damage(resumed.folder / "scratch")
    damage(resumed.folder / "outlines")
    resumed(tmp_path / "data")
    assert resumed.digest() == draw.digest()


@pytest.mark.slow
def test_rows_are_drawn_from_a_row_group_with_over_two_gigabytes(
    tmp_path: Path, draw: Draw
) -> None:
    rows = draw(vast(tmp_path / "vast.parquet"), fraction=0.04)
    assert [len(row["images"][0]["bytes"]) for row in rows] == [2**25] * 3
