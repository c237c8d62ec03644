"""Small data sets to draw from, and their draws."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from interlace.data.files import data_files
from interlace.data.sets import DrawCounts, sample
from interlace.params.inputs import Data
from interlace.samples.rows import SCHEMA, iterate
from interlace.sources.pin import pin_data
from interlace.sources.pinned import PinnedData
from interlace.system.outputs import remove

Row = dict[str, Any]
INPUT_SCHEMA = pa.schema([SCHEMA.field(name) for name in ("images", "texts", "source")])


def picture(seed: int, side: int = 64) -> bytes:
    """A PNG of noise, which does not compress."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PICTURE = {"bytes": picture(0, side=8), "path": None}


def text_row(number: int, source: str = "made_up", turns: int = 1, images: int = 0) -> Row:
    texts = [{"user": f"ask {source} {number} {t}", "assistant": f"{number}"} for t in range(turns)]
    return {"images": [PICTURE] * images, "texts": texts, "source": source}


def picture_row(number: int, source: str = "made_up") -> Row:
    return text_row(number, source) | {"images": [{"bytes": picture(number), "path": None}]}


def stored(path: Path, rows: list[Row], group: int = 10, schema: pa.Schema = INPUT_SCHEMA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=group)
    return path


def vast(path: Path, rows: int = 68) -> Path:
    """Rows in one row group, with more than 2 GiB of images: one picture, each padded to 32 MiB."""
    picture = PICTURE["bytes"] + b"\0" * (2**25 - len(PICTURE["bytes"]))  # readers ignore the end
    pictures = pa.DictionaryArray.from_arrays(pa.array([0] * rows), pa.array([picture]))
    images = pa.StructArray.from_arrays([pictures, pa.nulls(rows, pa.string())], ["bytes", "path"])
    lists = pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), images)
    texts = [text_row(number)["texts"] for number in range(rows)]
    table = pa.table({"images": lists, "texts": texts, "source": ["made_up"] * rows})
    pq.write_table(table, path, store_schema=False, dictionary_pagesize_limit=2**26)
    return path


def three_subsets(folder: Path) -> Path:
    """A data set of a (200 rows), b (50) and c (7)."""
    for name, n in (("a", 200), ("b", 50), ("c", 7)):
        stored(folder / name / "train.parquet", [text_row(i, name) for i in range(n)])
    return folder


def pinned(source: Path, folder: Path | None = None) -> PinnedData:
    """Pin a file or a folder of data; hashes are remembered beside it."""
    hashes = (folder or source.parent) / "hashes.json"
    return pin_data(str(source), None, field="data.id", hashes=hashes)


@dataclass
class Draw:
    """Draws into one folder; `source` is a file or a folder."""

    folder: Path
    counts: DrawCounts = field(default_factory=DrawCounts)

    def __call__(self, source: Path, seed: int = 0, **data: Any) -> list[Row]:
        """Draw; returns the training rows."""
        self.counts = sample(
            data_files(pinned(source, self.folder)),
            self.folder / "train",
            self.folder / "calibration",
            data=Data(id="x", **data),
            seed=seed,
            scratch=self.folder / "scratch",
            outlines=self.folder / "outlines",
        )
        remove(self.folder / "scratch")
        return list(iterate(self.folder / "train"))

    @property
    def calibration(self) -> list[Row]:
        return list(iterate(self.folder / "calibration"))

    def digest(self) -> list[bytes]:
        """The bytes of both sets."""
        folders = (self.folder / "train", self.folder / "calibration")
        return [path.read_bytes() for folder in folders for path in sorted(folder.iterdir())]


def ids(rows: list[Row]) -> list[str]:
    return [row["sample_id"] for row in rows]


def numbers(rows: list[Row]) -> list[int]:
    return [int(row["texts"][0]["assistant"]) for row in rows]
