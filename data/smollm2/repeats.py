"""Repeated paragraphs: those that were seen before, word for word or nearly so."""

import re
from hashlib import blake2b

RUN = 8  # words in a row
MOST_SEEN = 0.3  # share of a paragraph's runs of words that occurred before


class Repeats:
    """All runs of words that occurred so far, whatever text they were in."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def is_new(self, paragraph: str) -> bool:
        """Tell if most of a paragraph never occurred before; remember it if so."""
        runs = word_runs(paragraph)
        if len(runs & self._seen) > MOST_SEEN * len(runs):
            return False
        self._seen |= runs
        return True


def word_runs(text: str) -> set[bytes]:
    """Return digests of all runs of RUN words, without case and punctuation."""
    words = re.findall(r"\w+", text.lower())
    starts = range(max(1, len(words) - RUN + 1))
    runs = (" ".join(words[start : start + RUN]) for start in starts)
    return {blake2b(run.encode(), digest_size=8).digest() for run in runs}
