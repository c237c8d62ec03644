"""Odd images are named, unfit ones refused; all are converted as a viewer shows them."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from PIL import Image, ImageFile

from benchmarks.peak_memory import status_bytes
from interlace.model import images
from interlace.model.chat import encode_prompt
from interlace.model.images import UnfitImage, oddities, open_image, plain

MOST = 1_000_000


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(data: bytes) -> Image.Image:
    return open_image({"bytes": data, "path": None})


def rgb(width: int = 8, height: int = 6) -> Any:
    return Image.new("RGB", (width, height), (200, 30, 60))


def turned(orientation: int) -> bytes:
    """A JPEG of 16 x 8, left half black, with an orientation."""
    image = Image.new("RGB", (16, 8), "white")
    image.paste((0, 0, 0), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", exif=exif, quality=95)


def broken_exif() -> bytes:
    """A JPEG that EXIF turns, with a Compression of a wrong sign, which PIL cannot write anew."""
    wrong = struct.pack("<HHL4s", 0x103, 8, 1, struct.pack("<h", -3).ljust(4, b"\0"))
    turn = struct.pack("<HHL4s", 0x112, 3, 1, struct.pack("<H", 6).ljust(4, b"\0"))
    directory = struct.pack("<H", 2) + wrong + turn + struct.pack("<L", 0)
    header = b"Exif\0\0II*\0" + struct.pack("<L", 8)
    return encoded(Image.new("RGB", (16, 8)), "JPEG", exif=header + directory)


def floats(value: float) -> bytes:
    levels = np.full((6, 8), 0.5, dtype=np.float32)
    levels[2, 3] = value
    return encoded(Image.fromarray(levels), "TIFF")


PALETTE = rgb().convert("P")
SIXTEEN = Image.fromarray(np.full((6, 8), 32896, dtype=np.uint16))
CLEAR = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
ODD = {
    "CMYK": (encoded(rgb().convert("CMYK"), "JPEG"), ["CMYK"]),
    "palette": (encoded(PALETTE), ["palette"]),
    "transparent palette": (encoded(PALETTE, transparency=0), ["palette", "transparent"]),
    "16-bit": (encoded(SIXTEEN), ["16-bit"]),
    "transparent": (encoded(CLEAR), ["transparent"]),
    "grey and transparent": (encoded(Image.new("LA", (8, 6), (9, 99))), ["transparent"]),
    "turned": (turned(6), ["turned by EXIF"]),
    "plain JPEG": (encoded(rgb(), "JPEG"), []),
    "upright": (turned(1), []),
    "grey": (encoded(Image.new("L", (8, 6), 7)), []),
    "one pixel": (encoded(rgb(1, 1)), []),
    "a ribbon": (encoded(rgb(9_000, 50)), []),
}


@pytest.mark.parametrize(("data", "names"), ODD.values(), ids=ODD)
def test_an_odd_image_is_named_and_opens_as_plain_rgb(data: bytes, names: list[str]) -> None:
    assert oddities(data, MOST) == names
    assert decoded(data).mode == "RGB"


UNFIT = {
    "nothing": (b"", "empty"),
    "null": (None, "empty"),
    "no image": (b"GIF?", "no known format"),
    "cut JPEG": (encoded(rgb(64, 64), "JPEG")[:-40], "cut short or damaged"),
    "cut PNG": (models.picture(0, 32)[:-400], "cut short or damaged"),
    "bomb": (b"P6 30000 30000 255\n", "more than 1000000 pixels"),
    "too large": (encoded(rgb(1001, 1000)), "more than 1000000 pixels"),
    "not a number": (floats(np.nan), "not finite"),
    "infinite": (floats(np.inf), "not finite"),
    "ribbon": (encoded(rgb(8_000, 40)), "200 times as long as it is wide"),
}


@pytest.mark.parametrize(("data", "reason"), UNFIT.values(), ids=UNFIT)
def test_an_unfit_image_is_refused_with_its_reason(
    data: bytes | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as lmms-eval sets it
    with pytest.raises(UnfitImage, match=reason):
        oddities(data, MOST)
    if "pixels" not in reason:
        with pytest.raises(UnfitImage, match=reason):
            open_image({"bytes": data, "path": None})


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (CLEAR, (255, 255, 255)),  # on white
        (Image.new("RGBA", (1, 1), (255, 0, 0, 128)), (255, 127, 127)),
        (decoded(encoded(SIXTEEN)), (128, 128, 128)),  # scaled, not clipped
        (Image.fromarray(np.full((2, 2), 77, dtype=np.int32)), (77, 77, 77)),
        (Image.fromarray(np.array([[5 * 10**8, 10**9]], dtype=np.int32)), (128, 128, 128)),
        (rgb(), (200, 30, 60)),
        (rgb().convert("CMYK"), (200, 30, 60)),
        (rgb().quantize(), (200, 30, 60)),
        (Image.new("L", (4, 4), 99), (99, 99, 99)),
    ],
    ids=lambda value: getattr(value, "mode", str(value)),
)
def test_an_image_is_converted_as_a_viewer_shows_it(
    image: Image.Image, colour: tuple[int, int, int]
) -> None:
    assert plain(image).getpixel((0, 0)) == colour


def test_an_image_is_turned_upright() -> None:
    image = decoded(turned(6))  # a quarter turn clockwise
    assert image.size == (8, 16)
    assert image.getpixel((4, 2)) < (20, 20, 20)
    assert image.getpixel((4, 13)) > (235, 235, 235)


def test_an_image_whose_exif_is_broken_is_turned_all_the_same() -> None:
    assert oddities(broken_exif(), MOST) == ["turned by EXIF"]
    assert decoded(broken_exif()).size == (8, 16)


def test_a_path_without_bytes_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(rgb()))
    with pytest.raises(UnfitImage, match="holds a path and no bytes"):
        open_image({"bytes": None, "path": str(tmp_path / "a.png")})


def test_a_model_can_be_asked_about_one_pixel(processor: Any) -> None:
    texts = [{"user": "What?", "assistant": "A pixel."}]
    row = {"images": [{"bytes": encoded(rgb(1, 1))}], "texts": texts}
    assert encode_prompt(processor, row)["pixel_values"].shape[0] > 0


LONG = (20_000, 500)  # sides, pixels


@pytest.fixture(scope="module", params=["I;16", "RGBA", "RGB", "LA"])
def long_image(request: pytest.FixtureRequest) -> bytes:
    """Encode an image of 20,000 pixels in a mode that is converted, or not."""
    return encoded(Image.new(request.param, LONG), compress_level=1)


def growth(work: Callable[[], object]) -> float:
    """Return how much a call raises the peak resident size, bytes per pixel of a long image."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    resident = status_bytes("VmRSS")
    work()
    return (status_bytes("VmHWM") - resident) / (LONG[0] * LONG[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_memory_is_bounded_by_the_pixels_of_an_image(long_image: bytes) -> None:
    strip = 64 * images._STRIP / (LONG[0] * LONG[1])
    assert growth(lambda: oddities(long_image, 2 * LONG[0] * LONG[1])) < 4 + strip
    assert growth(lambda: decoded(long_image)) < 8 + strip


def test_strips_join_to_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = np.arange(48, dtype=np.uint16).reshape(6, 8)
    for data in (encoded(Image.fromarray(levels * 900)), encoded(CLEAR), floats(7), turned(6)):
        whole = np.asarray(decoded(data))
        with monkeypatch.context() as patch:
            patch.setattr(images, "_STRIP", 16)
            assert (np.asarray(decoded(data)) == whole).all()


def test_threads_decode_large_images_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, held = images._one_large_image, list[bool]()
    monkeypatch.setattr(images, "_LARGE", 1)
    monkeypatch.setattr(images, "_decode", lambda image: held.append(lock.locked()))
    for side in (1, 2):
        oddities(encoded(rgb(side, 1)), MOST)
    assert held == [False, True]
