"""The caption of a drawing: 16 words that state what it shows, one for each visual token.

A word is one token of the decoder: a digit, or an English word with its leading space. A visual
token learns to be the input embedding of its word, so that a decoder that never saw an image reads
one as text. A caption holds what can be seen; sums and differences are left to the decoder.
"""

from collections.abc import Sequence
from typing import Any

from drawing import COLOURS, KINDS, SIDE, Drawing, Shape

WORDS = 16  # of a caption, and visual tokens of an image
FILLER = "."
TEN = "ten"  # as many shapes as a drawing has at most: 10 would be two tokens
LARGE = 8  # pixels: larger shapes are named where they are, smaller ones are counted
PLACES = ("top", "bottom"), ("left", "right")
VOCABULARY = (
    *(FILLER, *COLOURS, *KINDS, *PLACES[0], *PLACES[1]),
    *("digit", "larger", "smaller", "highest", "lowest", TEN),
    *map(str, range(10)),
)


def caption(drawing: Drawing) -> list[str]:
    """Return the words of a drawing's caption; fillers follow a short one.

    "digit 4", "left 4 right 7 larger 7 smaller 4", "red 5 green 3 blue 7 highest blue lowest
    green", counts of all colours and kinds, or "top left red circle" for each of four shapes.
    """
    if drawing.bars:
        words = _of_bars(drawing.bars)
    elif drawing.shapes:
        large = drawing.shapes[0].radius > LARGE
        words = (_of_places if large else _of_counts)(drawing.shapes)
    else:
        words = _of_digits(drawing.digits)
    return words + [FILLER] * (WORDS - len(words))


def _of_digits(digits: Sequence[int]) -> list[str]:
    if len(digits) == 1:
        return ["digit", str(digits[0])]
    left, right = map(str, digits)
    return ["left", left, "right", right, "larger", max(left, right), "smaller", min(left, right)]


def _of_bars(bars: Sequence[tuple[str, int]]) -> list[str]:
    words = [word for colour, height in bars for word in (colour, str(height))]
    ranked = [colour for colour, _ in sorted(bars, key=lambda bar: bar[1])]
    return [*words, "highest", ranked[-1], "lowest", ranked[0]]


def _of_counts(shapes: Sequence[Shape]) -> list[str]:
    words = []
    for name in (*COLOURS, *KINDS):
        count = sum(name in (shape.colour, shape.kind) for shape in shapes)
        words += [name, TEN if count == 10 else str(count)]
    return words


def _of_places(shapes: Sequence[Shape]) -> list[str]:
    words = []
    for shape in sorted(shapes, key=lambda shape: (shape.y, shape.x)):
        words += [PLACES[0][shape.y > SIDE // 2], PLACES[1][shape.x > SIDE // 2]]
        words += [shape.colour, shape.kind]
    return words


def token_of(word: str, tokenizer: Any) -> int:
    """Return the one token of a word of the vocabulary.

    Raises:
        ValueError: the tokenizer splits it.
    """
    text = f" {word}" if word.isalpha() else word
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(tokens) != 1:
        raise ValueError(f"the word {word!r} of a caption is {len(tokens)} tokens, not one")
    return int(tokens[0])
