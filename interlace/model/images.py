"""Open images as plain RGB, and check encoded ones before they are opened in full."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

ASPECT = 200  # Qwen's processors refuse images that are longer than this times their width
_UPRIGHT = (None, 0, 1)  # values of EXIF's Orientation that need no rotation
_ODD_MODES = {"CMYK": "CMYK", "P": "palette", "PA": "palette", "F": "floating-point"}
_WHITE = (255, 255, 255, 255)


class UnfitImage(Exception):
    """An image that cannot be trained on; the message is the reason."""


def oddities(data: bytes | None, max_pixels: int) -> list[str]:
    """Decode an image once, and list its oddities.

    Args:
        data: the encoded image.
        max_pixels: larger images are not decoded, pixels.

    Returns:
        Those that `plain` evens out: CMYK, palette, 16-bit, transparent, turned by EXIF.

    Raises:
        UnfitImage: empty, no image, cut short or damaged, too large, or too long for its width.
    """
    if not data:
        raise UnfitImage("an image is empty")
    too_large = f"an image of more than {max_pixels} pixels"
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise UnfitImage(too_large) from None
    except Exception:  # PIL raises many types for what is no image
        raise UnfitImage("an image is of no known format") from None
    width, height = image.size
    if width * height > max_pixels:
        raise UnfitImage(too_large)
    if max(width, height) >= ASPECT * min(width, height):
        raise UnfitImage(f"an image is {ASPECT} times as long as it is wide, or more")
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # lmms-eval turns it on for its whole process
    try:
        image.load()  # `verify` misses JPEGs that are cut short
        turned = image.getexif().get(ExifTags.Base.Orientation) not in _UPRIGHT
    except Exception:  # as above
        raise UnfitImage("an image is cut short or damaged") from None
    names = [_ODD_MODES[image.mode]] if image.mode in _ODD_MODES else []
    if image.mode.startswith("I"):
        names.append("16-bit")
    if image.has_transparency_data:
        names.append("transparent")
    return names + (["turned by EXIF"] if turned else [])


def open_image(image: Any) -> Image.Image:
    """Return plain RGB of an open image, or of one as Parquet holds it ({"bytes", "path"})."""
    if isinstance(image, Mapping):
        image = Image.open(io.BytesIO(image["bytes"]))
    return plain(image)


def plain(image: Image.Image) -> Image.Image:
    """Convert an image to 8-bit RGB as a viewer shows it: upright, on white.

    PIL's own conversion clips 16 bits to 8, which leaves nearly everything white, and shows what
    transparency hides.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _in_eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    return image.convert("RGB")


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Convert grey levels: of 16 bits, of 8 bits in wider numbers, or floats from 0 to 1."""
    levels = np.asarray(image).astype(np.float64)  # [height, width]
    top = float(levels.max(initial=0.0))
    scale = 255.0 if top <= 1 and image.mode == "F" else 1.0 if top <= 255 else 255 / 65535
    if image.mode.startswith("I;16"):
        scale = 255 / 65535
    return Image.fromarray(np.clip(levels * scale + 0.5, 0, 255).astype(np.uint8))
