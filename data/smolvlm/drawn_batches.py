"""Training rows, drawn anew for each step, their handwriting distorted a little.

The demo's own questions and drawings, from the handwriting that its training rows come from.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from drawing import INK_LEVELS, Drawing, Handwriting
from PIL import Image
from questions import DIALOGUES, PRACTICE, SOURCES, Turn

TURN, STRETCH, SHIFT = 0.15, 0.1, 0.5  # radians, share, pixels of 8: most a digit is distorted by
STREAMS = ("tower", "lora", "joint", "held out")  # each step of the training has numbers of its own


class DrawnRow(NamedTuple):
    """A row before it becomes FineVision's: its source, its drawings, its turns."""

    source: str
    drawings: list[Drawing]
    turns: list[Turn]

    def as_fine_vision(self) -> dict:
        """Return the row as `interlace.model.chat` takes it."""
        images = [{"bytes": drawing.png, "path": None} for drawing in self.drawings]
        texts = [{"user": user, "assistant": answer} for user, answer in self.turns]
        return {"images": images, "texts": texts}


class DistortedHandwriting(Handwriting):
    """Training handwriting, each digit turned, stretched and shifted a little at random."""

    def __init__(self, seed: int) -> None:
        super().__init__("train", seed)

    def draw(self, digit: int, rng: np.random.Generator) -> np.ndarray:
        """One image of `digit`, [8, 8] ink levels from 0 to `INK_LEVELS`."""
        glyph = Image.fromarray(super().draw(digit, rng).astype(np.float32))
        angle = rng.uniform(-TURN, TURN)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.diag(1 + rng.uniform(-STRETCH, STRETCH, 2))
        centre = np.full(2, 4.0)
        offset = centre - matrix @ centre + rng.uniform(-SHIFT, SHIFT, 2)
        affine = np.column_stack([matrix, offset]).ravel().tolist()
        distorted = glyph.transform(
            glyph.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
        )
        return np.rint(distorted).clip(0, INK_LEVELS).astype(np.uint8)


def draw_rows(
    stream: str, number: int, rows: int, seed: int, hand: Handwriting, sources: Sequence[str]
) -> list[DrawnRow]:
    """Draw rows of these sources by their shares; a stream's number gives the same ones again."""
    rng = np.random.default_rng([seed, STREAMS.index(stream), number])
    shares = np.array([SOURCES[source][1] for source in sources])
    chosen = rng.choice(len(sources), size=rows, p=shares / shares.sum())
    names = [sources[choice] for choice in chosen]
    return [DrawnRow(name, *SOURCES[name][0](rng, hand)) for name in names]


def held_out_rows(rows: int, seed: int) -> list[DrawnRow]:
    """Draw rows like the demo's held-out ones, of its held-out handwriting."""
    sources = [source for source in SOURCES if source not in PRACTICE]
    drawn = draw_rows("held out", 0, rows, seed, Handwriting("test", seed), sources)
    return [row if row.source in DIALOGUES else row._replace(turns=row.turns[:1]) for row in drawn]
