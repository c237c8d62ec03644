"""The scale of nines, on which cosines are shown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLOSEST = 1e-6  # cosines above 1 - CLOSEST are shown there


def nines(cosine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `-log10(1 - cosine)`, which tells redundant layers apart: 0.9 is 1, 0.99 is 2."""
    distance = np.maximum(1 - np.asarray(cosine, dtype=np.float64), CLOSEST)
    return np.asarray(-np.log10(distance))
