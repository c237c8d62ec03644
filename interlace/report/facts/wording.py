"""Numbers and names in words, for the terminal, the cards and the page."""

from __future__ import annotations

from collections.abc import Sequence

from interlace.evaluation.scores.result import Score

NONE = "\u2013"


def spelled(reference: str) -> str:
    """A reference's name for people: Dense-FT."""
    kind = reference.rsplit("_", 1)[-1]
    return f"Dense-{kind.upper()}"


def device_name(name: str) -> str:
    """Where something was measured, in words."""
    return "a CPU" if name == "cpu" else name


def sample_counts(found: Sequence[Score | None]) -> str:
    """How many rows the models answered: one number, or from the least to the most."""
    counts = sorted({score.n for score in found if score})
    if not counts:
        return NONE
    return " to ".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1])))


def size(parameters: float) -> str:
    """A number of parameters to three digits: 8.77B, 3.82M."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= scale:
            return f"{parameters / scale:.2f}{unit}"
    return str(int(parameters))
