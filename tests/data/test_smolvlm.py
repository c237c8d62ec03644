"""The captions and training rows of data/smolvlm, against what their images show."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from captions import FILLER, TEN, VOCABULARY, WORDS, caption
from drawing import (
    BAR_UNIT,
    COLOURS,
    DIGIT_SCALE,
    KINDS,
    SIDE,
    Drawing,
    Handwriting,
    Shape,
    _mask,
    in_cells,
    scene,
)
from drawn_batches import DistortedHandwriting, draw_rows, held_out_rows
from PIL import Image
from questions import SOURCES

from interlace.system.documents import read_yaml

ROOT = Path(__file__).parents[2] / "data"
HAND = Handwriting("train", 0)
DRAWN = [source for source in SOURCES if not source.startswith("text_")]


def canvas(drawing: Drawing) -> np.ndarray:
    """The image's palette indices, [64, 64]."""
    return np.asarray(Image.open(io.BytesIO(drawing.png)))


def colours(drawing: Drawing) -> np.ndarray:
    """The image's colours by name, empty for paper and lines, [64, 64]."""
    names = {rgb: name for name, rgb in COLOURS.items()}
    pixels = Image.open(io.BytesIO(drawing.png)).convert("RGB")
    values = np.asarray(pixels).reshape(-1, 3)
    return np.array([names.get(tuple(value.tolist()), "") for value in values]).reshape(SIDE, SIDE)


def bars_seen(drawing: Drawing) -> list[tuple[str, int]]:
    found = []
    for column in colours(drawing).T:
        names = [name for name in column if name]
        if names and (names[0], len(names) // BAR_UNIT) not in found:
            found.append((names[0], len(names) // BAR_UNIT))
    return found


def shapes_seen(drawing: Drawing, cell: int, radius: int) -> list[tuple[str, str, int, int]]:
    """Colour, kind and cell of each shape, by trying all kinds in all cells."""
    image, found = colours(drawing), []
    for y in range(cell // 2, SIDE, cell):
        for x in range(cell // 2, SIDE, cell):
            here = image[y - cell // 2 : y + cell // 2, x - cell // 2 : x + cell // 2] != ""
            for kind in KINDS:
                mask = _mask(Shape(kind, "red", x, y, radius))
                mask = mask[y - cell // 2 : y + cell // 2, x - cell // 2 : x + cell // 2]
                if here.any() and (here == mask).all():
                    found.append((image[y, x], kind, x // cell, y // cell))
    return found


def digits_seen(drawing: Drawing) -> list[int]:
    """The digits whose glyph stands somewhere in the image, from left to right."""
    image, size = canvas(drawing), 8 * DIGIT_SCALE
    found = {}
    for x in (0, size // 2, size):
        for y in (8, 16, 24):
            patch = image[y : y + size, x : x + size][::DIGIT_SCALE, ::DIGIT_SCALE]
            for digit, glyphs in enumerate(HAND.by_digit):
                if len(patch) == 8 and (glyphs == patch).all((1, 2)).any():
                    found[x] = digit
    return [digit for _, digit in sorted(found.items())]


def expected(source: str, drawing: Drawing) -> str:
    """The caption, from the pixels alone."""
    if source.startswith("bar"):
        bars = bars_seen(drawing)
        ranked = sorted((height, colour) for colour, height in bars)
        text = " ".join(f"{colour} {height}" for colour, height in bars)
        return f"{text} highest {ranked[-1][1]} lowest {ranked[0][1]}"
    if source == "shape_relation":
        return " ".join(
            f"{('top', 'bottom')[y]} {('left', 'right')[x]} {colour} {kind}"
            for colour, kind, x, y in shapes_seen(drawing, 32, 12)
        )
    if source.startswith("shape"):
        shapes = shapes_seen(drawing, 16, 6)
        return " ".join(
            f"{name} {sum(name in shape for shape in shapes)}" for name in (*COLOURS, *KINDS)
        )
    digits = digits_seen(drawing)
    if len(digits) == 1:
        return f"digit {digits[0]}"
    left, right = digits
    return f"left {left} right {right} larger {max(digits)} smaller {min(digits)}"


@pytest.mark.parametrize("source", DRAWN)
def test_a_caption_states_what_the_pixels_show(source: str) -> None:
    for row in draw_rows("lora", 0, 12, 0, HAND, [source]):
        assert len(row.drawings) == (2 if source == "image_order" else 1)
        for drawing in row.drawings:
            words = caption(drawing)
            assert len(words) == WORDS and {*words} <= {*VOCABULARY}
            assert " ".join(words).rstrip(f" {FILLER}") == expected(source, drawing)


def test_ten_shapes_of_a_colour_are_one_word() -> None:
    rng = np.random.default_rng(0)
    shapes = in_cells([("circle", "red")] * 10, rng)
    words = caption(Drawing(scene(shapes, rng), shapes=tuple(shapes)))
    assert words[:2] == ["red", TEN] and len(words) == WORDS


def test_counts_are_the_answers_of_the_demos_questions() -> None:
    for row in draw_rows("lora", 1, 20, 0, HAND, ["shape_count"]):
        words = caption(row.drawings[0])
        for user, answer in row.turns:
            name = re.match(r"How many (\w+) shapes", user)[1]
            assert words[words.index(name) + 1] == answer.replace("10", TEN)


def test_rows_of_a_number_are_the_same_each_time_and_others_differ() -> None:
    first = draw_rows("lora", 3, 8, 0, DistortedHandwriting(0), list(SOURCES))
    assert first == draw_rows("lora", 3, 8, 0, DistortedHandwriting(0), list(SOURCES))
    assert first != draw_rows("joint", 3, 8, 0, DistortedHandwriting(0), list(SOURCES))
    assert first != draw_rows("lora", 4, 8, 0, DistortedHandwriting(0), list(SOURCES))


def test_training_draws_no_held_out_handwriting(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = DistortedHandwriting(0), Handwriting("test", 0)
    drawn: list[np.ndarray] = []
    original = Handwriting.draw

    def recorded(self: Handwriting, digit: int, rng: np.random.Generator) -> np.ndarray:
        drawn.append(original(self, digit, rng))
        return drawn[-1]

    monkeypatch.setattr(Handwriting, "draw", recorded)
    draw_rows("tower", 0, 300, 0, train, DRAWN)
    pool = {glyph.tobytes() for glyphs in HAND.by_digit for glyph in glyphs}
    assert len(drawn) > 100 and {glyph.tobytes() for glyph in drawn} <= pool
    demo = read_yaml(ROOT / "demo/params.yaml")["seed"]
    assert read_yaml(ROOT / "smolvlm/params.yaml")["seed"] == demo  # it splits the handwriting
    drawn.clear()
    held_out_rows(100, 0)
    pool = {glyph.tobytes() for glyphs in test.by_digit for glyph in glyphs}
    assert len(drawn) > 20 and {glyph.tobytes() for glyph in drawn} <= pool


def test_distorted_digits_keep_their_size_and_most_of_their_ink() -> None:
    rng, hand = np.random.default_rng(0), DistortedHandwriting(0)
    for digit in range(10):
        glyph = hand.draw(digit, rng)
        assert glyph.shape == (8, 8) and glyph.dtype == np.uint8 and glyph.min() >= 0
        assert glyph.max() <= 4 and 0.5 < glyph.mean() / np.mean(hand.by_digit[digit]) < 1.6
