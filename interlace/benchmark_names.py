"""What counts in a benchmark's name: not its case, and not its punctuation."""

from __future__ import annotations


def key(name: str) -> str:
    """A benchmark's name without case and punctuation (V*, MIA-Bench)."""
    letters = name.casefold().replace("*", "star")
    return "".join(letter for letter in letters if letter.isalnum())
