from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation.published_rows import write_parquet
from models import picture, rows
from PIL import Image

from interlace.errors import InputError
from interlace.evaluation.benchmarks.images import row_images
from interlace.model.chat import open_image
from interlace.params.evaluating import Evaluate


def same(image: Image.Image, seed: int, side: int) -> bool:
    wanted = open_image({"bytes": picture(seed, side=side), "path": None})
    return image.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("name", ["AI2D", "POPE"])
def test_rows_of_a_benchmark_show_their_own_image(name: str, tmp_path: Path) -> None:
    write_parquet(name, tmp_path / f"{name}.parquet", 6)
    found = row_images(Evaluate(data=str(tmp_path)), name, [4, 1])
    assert set(found) == {1, 4}
    assert all(same(found[place][0], place, 32) for place in found)


def test_hrbench_keeps_its_images_as_text(tmp_path: Path) -> None:
    write_parquet("HRBench4K", tmp_path / "HRBench4K.parquet", 6)
    found = row_images(Evaluate(data=str(tmp_path)), "HRBench4K", [5])
    assert same(found[5][0], 2, 32)


def test_rows_are_counted_over_all_files_and_row_groups(tmp_path: Path) -> None:
    whole = pq.read_table(write_parquet("AI2D", tmp_path / "one.parquet", 6))
    folder = tmp_path / "AI2D/data"
    folder.mkdir(parents=True)
    for i, part in enumerate((whole.slice(0, 4), whole.slice(4))):
        pq.write_table(part, folder / f"test-0000{i}-of-00002.parquet", row_group_size=3)
    found = row_images(Evaluate(data=str(tmp_path)), "AI2D", range(6))
    assert all(same(found[place][0], place, 32) for place in range(6))


def test_rows_of_a_source_show_all_of_their_images(
    write_rows: Callable[[list[dict[str, Any]]], Path],
) -> None:
    made = rows(6, source="b")[3:] + rows(6, source="a")
    found = row_images(Evaluate(judged=(str(write_rows(made)),)), "a", [0, 2])
    assert [len(found[place]) for place in (0, 2)] == [0, 2]
    assert same(found[2][1], 21, 64)


def test_a_row_without_an_image_shows_none(tmp_path: Path) -> None:
    write_parquet("ScienceQA", tmp_path / "ScienceQA.parquet", 2)
    assert row_images(Evaluate(data=str(tmp_path)), "ScienceQA", [0])[0] == []


def test_what_is_not_here_shows_nothing_and_what_is_nowhere_is_named(tmp_path: Path) -> None:
    assert row_images(Evaluate(benchmarks=("POPE",)), "POPE", [0]) == {}
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"^elsewhere: .*--params"):
        row_images(Evaluate(), "elsewhere", [0])
