"""Draw the demo's images: handwritten digits, bar charts and scenes of shapes.

A canvas is a 64 x 64 array of palette indices, so that a PNG takes a few hundred bytes.
Every function is pure: arrays and a `numpy.random.Generator` in, arrays out.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIDE = 64
COLOURS = {
    "red": (214, 39, 40),
    "green": (44, 150, 44),
    "blue": (31, 89, 210),
    "orange": (255, 150, 14),
}
KINDS = ("circle", "square", "triangle", "cross")
BACKGROUNDS = ((255, 255, 255), (236, 236, 236))
INKS = ((20, 20, 20), (31, 89, 210))
GREY = (200, 200, 200)
INK_LEVELS = 4
DIGIT_SCALE = 4  # pixels per pixel of the 8 x 8 originals
BAR_UNIT = 6  # pixels per unit of bar height


@dataclass(frozen=True)
class Shape:
    """One shape: its kind, its colour, its centre and its radius in pixels."""

    kind: str
    colour: str
    x: int
    y: int
    radius: int


@dataclass(frozen=True)
class Drawing:
    """An image and what it shows: digits, bars or shapes.

    Attributes:
        png: the image.
        digits: handwritten ones, from left to right.
        bars: colour and height of each, from left to right.
        shapes: in any order.
    """

    png: bytes
    digits: tuple[int, ...] = ()
    bars: tuple[tuple[str, int], ...] = ()
    shapes: tuple[Shape, ...] = ()


class Handwriting:
    """scikit-learn's UCI digits, split so that no image serves both train and test."""

    def __init__(self, split: str, seed: int, test_share: float = 0.25) -> None:
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(labels))
        n_test = round(test_share * len(labels))
        chosen = order[:n_test] if split == "test" else order[n_test:]
        levels = np.rint(images[chosen].reshape(-1, 8, 8) / 16 * INK_LEVELS).astype(np.uint8)
        self.by_digit = [levels[labels[chosen] == digit] for digit in range(10)]

    def draw(self, digit: int, rng: np.random.Generator) -> np.ndarray:
        """One image of `digit`, [8, 8] ink levels from 0 to `INK_LEVELS`."""
        pool = self.by_digit[digit]
        return pool[rng.integers(len(pool))]


def png(canvas: np.ndarray, palette: list[tuple[int, int, int]]) -> bytes:
    """Encode palette indices [64, 64] as PNG."""
    image = Image.fromarray(canvas)
    image.putpalette([channel for colour in palette for channel in colour])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def handwriting(glyphs: list[np.ndarray], rng: np.random.Generator) -> bytes:
    """One or two handwritten digits from left to right, in one ink, each a little up or down."""
    canvas, size = np.zeros((SIDE, SIDE), np.uint8), 8 * DIGIT_SCALE
    for index, glyph in enumerate(glyphs):
        x = index * size if len(glyphs) > 1 else (SIDE - size) // 2
        y = 8 * int(rng.integers(1, 4))
        grown = np.kron(glyph, np.ones((DIGIT_SCALE, DIGIT_SCALE), np.uint8))
        canvas[y : y + size, x : x + size] = grown
    paper = np.array(BACKGROUNDS[rng.integers(len(BACKGROUNDS))])
    ink = np.array(INKS[rng.integers(len(INKS))])
    blends = [paper + (ink - paper) * level / INK_LEVELS for level in range(INK_LEVELS + 1)]
    return png(canvas, [tuple(int(channel) for channel in blend) for blend in blends])


def bar_chart(bars: list[tuple[str, int]], rng: np.random.Generator) -> bytes:
    """Bars (colour, height 1 to 9) from left to right before faint lines at 3, 6 and 9 units."""
    names, base = list(COLOURS), SIDE - 4
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    for line in (3, 6, 9):
        canvas[base - line * BAR_UNIT] = 1
    slot = SIDE // len(bars)
    for index, (colour, height) in enumerate(bars):
        left, top = index * slot + 3, base - height * BAR_UNIT
        canvas[top:base, left : left + slot - 6] = 2 + names.index(colour)
    return png(canvas, [_background(rng), GREY, *COLOURS.values()])


def scene(shapes: list[Shape], rng: np.random.Generator) -> bytes:
    """Draw filled shapes on plain paper."""
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    for shape in shapes:
        canvas[_mask(shape)] = 1 + list(COLOURS).index(shape.colour)
    return png(canvas, [_background(rng), *COLOURS.values()])


def in_cells(looks: list[tuple[str, str]], rng: np.random.Generator) -> list[Shape]:
    """Place (kind, colour) pairs in different cells of a 4 x 4 grid."""
    places = rng.permutation(16)[: len(looks)]
    return [
        Shape(kind, colour, 8 + 16 * int(place % 4), 8 + 16 * int(place // 4), 6)
        for (kind, colour), place in zip(looks, places, strict=True)
    ]


def _background(rng: np.random.Generator) -> tuple[int, int, int]:
    return BACKGROUNDS[rng.integers(len(BACKGROUNDS))]


def _mask(shape: Shape) -> np.ndarray:
    """Pixels [64, 64] that the shape covers."""
    ys, xs = np.mgrid[:SIDE, :SIDE]
    dx, dy, r = xs - shape.x, ys - shape.y, shape.radius
    if shape.kind == "circle":
        return dx**2 + dy**2 <= r**2
    inside = (abs(dx) <= r) & (abs(dy) <= r)
    if shape.kind == "square":
        return inside
    if shape.kind == "triangle":
        return inside & (2 * abs(dx) <= dy + r)
    thick = max(1, r // 3)
    return inside & ((abs(dx) <= thick) | (abs(dy) <= thick))
