"""Images inside of a page, as data URIs: nothing comes from outside."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

LONGEST_SIDE = 480  # pixels of an image on a page
MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Drawing:
    """A figure in a file, what it shows, and whether its letters are small for its size."""

    path: Path
    caption: str
    large: bool = False

    @property
    def source(self) -> str:
        """The file as a data URI."""
        return _data_uri(MEDIA_TYPES[self.path.suffix], self.path.read_bytes())


@dataclass(frozen=True)
class Picture:
    """An image of a data set, at most `LONGEST_SIDE` pixels long."""

    source: str
    width: int
    height: int


def picture(image: Image.Image) -> Picture:
    """Shrink an image and encode it as WebP in a data URI."""
    small = image.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=85)
    return Picture(_data_uri("image/webp", file.getvalue()), small.width, small.height)


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
