"""One opener of images: it decides what `sample` keeps, and it is how all later stages see them."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile

from interlace.errors import InputError

ASPECT = 200  # Qwen's processors refuse images that are longer than this times their width
_ODD_MODES = {"CMYK": "CMYK", "P": "palette", "PA": "palette", "F": "floating-point"}
_WHITE = (255, 255, 255, 255)
_STRIP = 2**18  # pixels that are converted at once
_LARGE = 2**24  # pixels; threads open an image of more alone
_one_large_image = threading.Lock()
_UPRIGHT = {  # by EXIF's Orientation, what turns the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnfitImage(InputError):
    """An image that cannot be used; the message is the reason."""


def oddities(data: bytes | None, max_pixels: int) -> list[str]:
    """Open an image once as `open_image` does, and list its oddities.

    Args:
        data: the encoded image.
        max_pixels: larger images are not decoded, pixels.

    Returns:
        Those that `plain` evens out: CMYK, palette, 16-bit, transparent, turned by EXIF.

    Raises:
        UnfitImage: see `open_image`; or larger than `max_pixels`.
    """
    image = _open(data, max_pixels)
    large = image.width * image.height > _LARGE
    turn: AbstractContextManager[Any] = _one_large_image if large else nullcontext()
    with turn:
        _decode(image)
        next(_strips(image))  # fails where its colours or levels cannot be shown
    names = [_ODD_MODES[image.mode]] if image.mode in _ODD_MODES else []
    if image.mode.startswith("I"):
        names.append("16-bit")
    if image.has_transparency_data:
        names.append("transparent")
    return names + (["turned by EXIF"] if _orientation(image) in _UPRIGHT else [])


def open_image(image: Any) -> Image.Image:
    """Return plain RGB of an open image, or of one as Parquet holds it ({"bytes", "path"}).

    Takes at most 8 bytes per pixel, those of the result included.

    Raises:
        UnfitImage: empty, a path without bytes, no image, cut short or damaged, too long for its
            width, with values that are not finite, or in colours that have no RGB.
    """
    return plain(image if isinstance(image, Image.Image) else _open(encoded_bytes(image)))


def enlarged(image: Image.Image, min_pixels: int) -> Image.Image:
    """Enlarge an image of fewer pixels, to sides of multiples of 32, as for Qwen3-VL.

    Args:
        image: plain RGB; one of enough pixels stays as it is.
        min_pixels: bound, pixels.
    """
    # imports torch
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    sides = {"height": image.height, "width": image.width, "factor": 32, "max_pixels": 2**62}
    height, width = smart_resize(**sides, min_pixels=min_pixels)
    enough = (height, width) == smart_resize(**sides, min_pixels=1)
    return image if enough else image.resize((width, height))


def encoded_bytes(image: Any) -> bytes | None:
    """Return the encoded bytes of an image as Parquet holds it; `None` for a missing one.

    Raises:
        UnfitImage: it is a path without bytes; no stage reads files that data names.
    """
    if not isinstance(image, Mapping):
        return None
    if not image.get("bytes") and image.get("path"):
        raise UnfitImage("an image holds a path and no bytes; embed the files")
    return image.get("bytes")


def plain(image: Image.Image) -> Image.Image:
    """Convert an image to 8-bit RGB as a viewer shows it: upright, on white.

    PIL's own conversion clips 16 bits to 8, which leaves nearly everything white, and shows what
    transparency hides.

    Raises:
        UnfitImage: see `open_image`.
    """
    _decode(image)
    method = _UPRIGHT.get(_orientation(image))
    upright = image if method is None else image.transpose(method)
    if upright.mode == "RGB" and not upright.has_transparency_data:
        return upright.copy() if upright is image else upright  # not as a file of some format
    canvas = Image.new("RGB", upright.size)
    for top, strip in _strips(upright):
        canvas.paste(strip, (0, top))
    return canvas


def _open(data: bytes | None, max_pixels: int | None = None) -> Image.Image:
    """Open an encoded image and check its size; pixels are not decoded yet."""
    if not data:
        raise UnfitImage("an image is empty")
    most = max_pixels or 2 * (Image.MAX_IMAGE_PIXELS or 2**31)  # PIL refuses more than twice that
    too_large = UnfitImage(f"an image of more than {most} pixels")
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise too_large from None
    except Exception:  # PIL raises many types for what is no image
        raise UnfitImage("an image is of no known format") from None
    width, height = image.size
    if width * height > most:
        raise too_large
    if max(width, height) >= ASPECT * min(width, height):
        raise UnfitImage(f"an image is {ASPECT} times as long as it is wide, or more")
    return image


def _decode(image: Image.Image) -> None:
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # lmms-eval turns it on for its whole process
    try:
        image.load()  # `verify` misses JPEGs that are cut short
    except Exception:  # as in `_open`
        raise UnfitImage("an image is cut short or damaged") from None


def _orientation(image: Image.Image) -> Any:
    """Return EXIF's Orientation; 1 where EXIF cannot be read, as viewers do.

    `ImageOps.exif_transpose` writes EXIF anew, and fails where one of its other entries is broken.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return value if value in _UPRIGHT else 1
    except Exception:  # as in `_open`
        return 1


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield an image in strips of RGB, each with its top row, so that memory is bounded."""
    width, height = image.size
    rows = max(1, _STRIP // width)
    boxes = [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]
    wide = image.mode.startswith("I") or image.mode == "F"
    scale = _scale(image, boxes) if wide else 1.0
    try:
        for box in boxes:
            strip = image.crop(box)
            if wide:
                strip = _in_eight_bits(strip, scale)
            if strip.has_transparency_data:
                strip = strip.convert("RGBA")
                strip = Image.alpha_composite(Image.new("RGBA", strip.size, _WHITE), strip)
            yield box[1], strip.convert("RGB")
    except ValueError:  # Lab, for one
        raise UnfitImage(f"an image's colours ({image.mode}) cannot be shown as RGB") from None


def _levels(image: Image.Image) -> Any:
    return np.asarray(image).astype(np.float64)  # [height, width]


def _scale(image: Image.Image, boxes: Sequence[tuple[int, int, int, int]]) -> float:
    """Return the factor to 8 bits of grey levels: 16 bits, 8 bits in wider numbers, or 0 to 1.

    Levels above 16 bits are scaled by the largest.
    """
    top = 0.0
    for box in boxes:
        levels = _levels(image.crop(box))
        if not np.isfinite(levels).all():
            raise UnfitImage("an image holds values that are not finite")
        top = max(top, float(levels.max(initial=0.0)))
    scale = 255.0 if top <= 1 and image.mode == "F" else 1.0 if top <= 255 else 255 / 65535
    if image.mode.startswith("I;16"):
        scale = 255 / 65535
    return min(scale, 255 / max(top, 1.0))


def _in_eight_bits(image: Image.Image, scale: float) -> Image.Image:
    return Image.fromarray(np.clip(_levels(image) * scale + 0.5, 0, 255).astype(np.uint8))
