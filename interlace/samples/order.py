"""The order of samples: a stable hash of content and seed."""

from __future__ import annotations

import hashlib


def shuffle_key(seed: int, *key: object) -> bytes:
    """Return the sort key of an item in a random order; the lowest keys are drawn first."""
    return hashlib.sha256(":".join(map(str, (seed, *key))).encode()).digest()
