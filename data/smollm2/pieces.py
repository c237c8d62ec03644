"""Pieces of a text: whole paragraphs, split into a beginning and its continuation."""

import re
from collections.abc import Iterator, Sequence

LEAST, MOST = 120, 320  # words of a piece: with the conversation around it 200 to 550 tokens
BEGINNING = 1 / 3  # the share of a piece's words that the user gives
NEAR = (0.2, 0.5)  # bounds of that share
SENTENCE_START = re.compile(r"(?<=[.!?)\"'`])(?<!e\.g\.)(?<!i\.e\.)\s+(?=[A-Z])")


def pieces(paragraphs: Sequence[str]) -> Iterator[str]:
    """Yield runs of paragraphs of LEAST to MOST words; all else is dropped."""
    piece: list[str] = []
    words = 0
    for paragraph in [*paragraphs, None]:
        length = 0 if paragraph is None else len(paragraph.split())
        if paragraph is None or words + length > MOST:
            if LEAST <= words <= MOST:
                yield "\n\n".join(piece)
            piece, words = [], 0
        if paragraph is not None:
            piece.append(paragraph)
            words += length


def split(piece: str) -> tuple[str, str] | None:
    """Split a piece where the sentence nearest to a third of its words ends.

    Returns:
        The beginning and the continuation; None if no sentence ends near a third.
    """
    total = len(piece.split())
    shares = {
        (match.start(), match.end()): len(piece[: match.start()].split()) / total
        for match in SENTENCE_START.finditer(piece)
    }
    if not shares:
        return None
    end, start = min(shares, key=lambda cut: abs(shares[cut] - BEGINNING))
    if not NEAR[0] <= shares[end, start] <= NEAR[1]:
        return None
    return piece[:end], piece[start:]
