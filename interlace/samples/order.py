"""The order of samples: a stable hash of content and seed."""

from __future__ import annotations

import hashlib


def shuffle_key(seed: int, *key: object) -> bytes:
    """Return the sort key of an item in a random order; the lowest keys are drawn first."""
    return hashlib.sha256(":".join(map(str, (seed, *key))).encode()).digest()


def answer_seed(seed: int, sample_id: str, turn: int = 0) -> int:
    """Return the seed of one sampled answer, below 2**63.

    Args:
        seed: of the run.
        sample_id: of the row that is answered.
        turn: of the row's conversation, 0-based.
    """
    return int.from_bytes(shuffle_key(seed, "answers", sample_id, turn)[:8]) >> 1
