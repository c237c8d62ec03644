"""Facts about the rows of a run: how many there are, how long, with how many images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from interlace.project.forecast.sizes import Patch

PIXELS = 480_000  # of an image where nothing can tell: 800 x 600


@dataclass(frozen=True)
class Spread:
    """Tokens, or images, of a row: the mean, and the most."""

    mean: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of some values; 0 of none."""
        return cls(mean(values), max(values)) if values else cls(0, 0)


@dataclass(frozen=True)
class RowFacts:
    """The rows of a run.

    Attributes:
        text: tokens of a whole conversation but those of images.
        prompt: tokens of its first prompt but those of images.
        answers: mean tokens of all answers of a row.
        images: of a row.
        image: tokens of an image within the processor's own bounds.
        seconds: to open and encode a row, by one process; 0: not counted.
        counted: the number of rows that all this was counted on; 0: assumed.
        notes: sentences on what was assumed.
        train: rows to train on.
        calibration: of these, rows to calibrate on.
        probes: domain probes.
        row_bytes: mean bytes of a row on disk.
    """

    text: Spread
    prompt: Spread
    answers: float
    images: Spread
    image: Spread
    seconds: float = 0
    counted: int = 0
    notes: tuple[str, ...] = ()
    train: int = 0
    calibration: int = 0
    probes: int = 0
    row_bytes: float = 0

    def image_tokens(self, patch: Patch, max_pixels: int | None) -> Spread:
        """Return the tokens of an image under a bound on its area."""
        if not (patch.pixels and max_pixels):
            return self.image
        most = max(1.0, max_pixels / patch.pixels)
        return Spread(min(self.image.mean, most), min(self.image.most, most))

    def tokens(self, text: Spread, patch: Patch, max_pixels: int | None, length: int) -> Spread:
        """Return the tokens of a row with its images, no longer than a length."""
        image = self.image_tokens(patch, max_pixels)
        longest = min(length, text.most + self.images.most * image.most)
        return Spread(min(text.mean + self.images.mean * image.mean, longest), longest)
