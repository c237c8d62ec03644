from __future__ import annotations

import io
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
from interlace.evaluation.benchmarks import images
from interlace.evaluation.benchmarks.images import row_images
from interlace.evaluation.benchmarks.pin import pin_evaluation
from interlace.params.evaluating import Evaluate


def equal(image: Image.Image, seed: int, side: int = 32) -> bool:
    expected = Image.open(io.BytesIO(picture(seed, side=side)))
    return image.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("name", "seeds"),
    [("AI2D", {1: 1, 4: 4}), ("HRBench4K", {5: 2}), ("ScienceQA", {0: None})],  # the 2nd as base64
)
def test_a_row_shows_its_own_image(name: str, seeds: dict[int, int | None], tmp_path: Path) -> None:
    write_parquet(name, tmp_path / f"{name}.parquet", 6)
    images = row_images(Evaluate(data=str(tmp_path)), name, list(seeds))
    assert images.keys() == seeds.keys()
    for row, seed in seeds.items():
        assert images[row] == [] if seed is None else equal(images[row][0], seed)


def test_rows_are_numbered_over_all_files_and_row_groups(tmp_path: Path) -> None:
    table = pq.read_table(write_parquet("AI2D", tmp_path / "one.parquet", 6))
    folder = tmp_path / "AI2D/data"
    folder.mkdir(parents=True)
    for i, shard in enumerate((table.slice(0, 4), table.slice(4))):
        pq.write_table(shard, folder / f"test-0000{i}-of-00002.parquet", row_group_size=3)
    images = row_images(Evaluate(data=str(tmp_path)), "AI2D", range(6))
    assert all(equal(images[row][0], row) for row in range(6))


def test_a_row_of_a_source_shows_all_its_images(write_rows: Callable[..., Path]) -> None:
    path = write_rows(rows(6, source="b")[3:] + rows(6, source="a"))
    images = row_images(Evaluate(judged=(str(path),)), "a", [0, 2])
    assert [len(images[row]) for row in (0, 2)] == [0, 2]
    assert equal(images[2][1], 21, side=64)


def test_benchmarks_on_the_hub_show_nothing_and_unknown_sources_are_refused() -> None:
    assert row_images(Evaluate(benchmarks=("POPE",)), "POPE", [0]) == {}
    with pytest.raises(InputError, match=r"^elsewhere: .*--params"):
        row_images(Evaluate(), "elsewhere", [0])


def damaged(path: Path, row: int, change: Callable[[Any], Any]) -> None:
    """Change the image of a row of a benchmark's file."""
    table = pq.read_table(path)
    values = table["image"].to_pylist()
    values[row] = change(values[row])
    column = pa.array(values, table.schema.field("image").type)
    pq.write_table(table.set_column(table.column_names.index("image"), "image", column), path)


def cut(image: Any) -> Any:
    return image[:400] if isinstance(image, str) else image | {"bytes": image["bytes"][:-40]}


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("AI2D", cut, "an image is cut short or damaged"),
        ("HRBench4K", cut, "an image is cut short or damaged"),
        ("HRBench4K", lambda image: "abc", "an image is not base64 text"),
        ("POPE", lambda image: None, "no image"),
        ("POPE", lambda image: {"bytes": None, "path": "a.png"}, "an image holds a path"),
    ],
)
def test_an_image_that_cannot_be_opened_is_named_before_any_work(
    name: str, change: Callable[[Any], Any], reason: str, tmp_path: Path
) -> None:
    path = write_parquet(name, tmp_path / f"{name}.parquet", 6)
    params = Evaluate(benchmarks=(name,), data=str(tmp_path))
    pin_evaluation(params, tmp_path / "hashes.json", tmp_path / "images.json")
    damaged(path, 3, change)
    with pytest.raises(InputError, match=f"{path}: row 3, column 'image': {reason}"):
        pin_evaluation(params, tmp_path / "hashes.json", tmp_path / "images.json")


def test_a_held_out_image_is_opened_once_per_file(
    write_rows: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = Evaluate(heldout=str(write_rows(rows(4))))
    pin_evaluation(params, tmp_path / "hashes.json", tmp_path / "images.json")
    monkeypatch.setattr(images, "open_image", None)
    pin_evaluation(params, tmp_path / "hashes.json", tmp_path / "images.json")


def test_the_report_shows_images_as_the_model_saw_them(
    write_rows: Callable[..., Path],
) -> None:
    clear = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(clear, "PNG")
    row = rows(1, source="a")[0] | {"images": [{"bytes": clear.getvalue(), "path": None}]}
    (image,) = row_images(Evaluate(heldout=str(write_rows([row]))), "a", [0])[0]
    assert image.getpixel((0, 0)) == (255, 255, 255)
