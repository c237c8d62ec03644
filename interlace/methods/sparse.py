"""Methods that drop no layer but zero half of the weights: `export` does so (`sparsity.py`)."""

from __future__ import annotations

from interlace.methods.choice import Choice, Request
from interlace.scores import Scores


def wanda_2_4(scores: Scores, request: Request) -> Choice:
    """Drop no layer; zero 2 of every 4 weights, those of least size times input."""
    return Choice.of_groups([])


def magnitude_2_4(scores: Scores, request: Request) -> Choice:
    """Drop no layer; zero 2 of every 4 weights, the smallest."""
    return Choice.of_groups([])
