"""Pieces of a text: whole paragraphs, split into a beginning and its continuation."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NEAR = 0.17  # of a text's words: how far from the planned place a sentence may end
SENTENCE_START = re.compile(r"(?<=[.!?)\"'`])(?<!e\.g\.)(?<!i\.e\.)\s+(?=[A-Z])")


@dataclass(frozen=True)
class Lengths:
    """The lengths of a split's pieces.

    Attributes:
        least: words of a piece.
        most: words of a piece; a word is about 1.5 tokens.
        beginning: the share of a piece's words that the user gives.
    """

    least: int
    most: int
    beginning: float


# Layers are chosen by the user's turns of training rows. In a short turn the first token, which a
# pretrained decoder treats unlike all others, weighs as much as in no real prompt.
TRAIN = Lengths(least=280, most=560, beginning=0.6)
TEST = Lengths(least=120, most=320, beginning=1 / 3)


def pieces(paragraphs: Sequence[str], lengths: Lengths) -> Iterator[str]:
    """Yield runs of paragraphs of the least to the most words; all else is dropped."""
    piece: list[str] = []
    words = 0
    for paragraph in [*paragraphs, None]:
        length = 0 if paragraph is None else len(paragraph.split())
        if paragraph is None or words + length > lengths.most:
            if lengths.least <= words <= lengths.most:
                yield "\n\n".join(piece)
            piece, words = [], 0
        if paragraph is not None:
            piece.append(paragraph)
            words += length


def split(piece: str, beginning: float) -> tuple[str, str] | None:
    """Split a piece where the sentence ends that is nearest to a share of its words.

    Returns:
        The beginning and the continuation; None if no sentence ends near there.
    """
    total = len(piece.split())
    shares = {
        (match.start(), match.end()): len(piece[: match.start()].split()) / total
        for match in SENTENCE_START.finditer(piece)
    }
    if not shares:
        return None
    end, start = min(shares, key=lambda cut: abs(shares[cut] - beginning))
    if abs(shares[end, start] - beginning) > NEAR:
        return None
    return piece[:end], piece[start:]
