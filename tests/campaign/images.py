"""Changes of images in rows: damaged ones, odd formats, odd sizes."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from campaign.damage import BYTES
from PIL import Image

WAYS = (("train damaged", 16), ("test damaged", 10), ("train format", 22), ("test format", 12))


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    body = chunk(b"IHDR", size + b"\x08\x02\0\0\0") + chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def _turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _saved(image.crop((0, 0, 64, 32)), "JPEG", exif=exif)


FORMATS: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg": lambda image: _saved(image, "JPEG"),
    "jpeg, turned": _turned,
    "jpeg, cmyk": lambda image: _saved(image.convert("CMYK"), "JPEG"),
    "gif": lambda image: _saved(image, "GIF"),
    "bmp": lambda image: _saved(image, "BMP"),
    "webp": lambda image: _saved(image, "WEBP"),
    "tiff": lambda image: _saved(image, "TIFF"),
    "tiff of not finite": lambda image: _saved(
        Image.fromarray(np.full((16, 16), np.nan, np.float32)), "TIFF"
    ),
    "png, 16 bits": lambda image: _saved(
        Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 200), "PNG"
    ),
    "png, 1 bit": lambda image: _saved(image.convert("1"), "PNG"),
    "png, palette": lambda image: _saved(image.convert("P"), "PNG", transparency=0),
    "png, see-through": lambda image: _saved(image.convert("LA"), "PNG"),
    "one pixel": lambda image: _saved(image.crop((0, 0, 1, 1)), "PNG"),
    "a line": lambda image: _saved(image.resize((3000, 1)), "PNG"),
    "a bomb": lambda image: _png(60_000, 60_000),
    "no pixels": lambda image: _png(0, 10),
    "svg": lambda image: b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>',
    "html": lambda image: b"<!doctype html><title>404</title>",
    "null": lambda image: b"",
}


def is_whole(data: bytes) -> bool:
    """Tell if Pillow reads an image to its end."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Exception:
        return False
    return True


def change(folder: Path, way: str, rng: random.Random) -> dict[str, Any]:
    """Change the image of one row, or of all."""
    which, what = way.split()
    path = folder / f"source/{which}.parquet"
    table = pq.read_table(path)
    images = table["images"].to_pylist()
    pictured = [place for place, row in enumerate(images) if row]
    how = rng.choice(sorted(BYTES if what == "damaged" else FORMATS))
    places = pictured if rng.random() < 0.2 else [rng.choice(pictured)]
    broken = []
    for place in places:
        data = images[place][0]["bytes"]
        if what == "damaged":
            data = BYTES[how](data, rng)
        else:
            data = FORMATS[how](Image.open(io.BytesIO(data)).convert("RGB"))
        broken += [] if is_whole(data) else [place]
        images[place][0]["bytes"] = data or None
    column = pa.array(images, table.schema.field("images").type)
    path.unlink()
    pq.write_table(table.set_column(table.column_names.index("images"), "images", column), path)

    def after(folder: Path) -> str:
        return _used(folder, which, _texts(table, broken)) if broken else ""

    names = [f"{which}.parquet", "image", "data.id", "heldout"]
    return {"note": f"{which}: {how} in {len(places)} rows", "names": names, "after": after}


def _texts(table: pa.Table, places: list[int]) -> list[Any]:
    texts = table["texts"].to_pylist()
    return [texts[place] for place in places]


def _used(folder: Path, which: str, texts: list[Any]) -> str:
    """Say if rows with images that nobody can read were trained on or scored."""
    if which == "train":
        rows = pq.read_table(folder / "data/train", columns=["texts"])["texts"].to_pylist()
        return "a damaged image is trained on" if any(text in rows for text in texts) else ""
    return "a damaged image is scored"
