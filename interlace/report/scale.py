"""The scale on which cosines near 1 can be told apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NINES = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
CLOSEST = 1e-6  # cosines above 1 - CLOSEST are drawn there


def nines(cosine: NDArray[np.float64]) -> NDArray[np.float64]:
    """`-log10(1 - cosine)`: 0.9 is 1, 0.99 is 2, so that redundant layers do not look alike."""
    distance = np.maximum(1 - np.asarray(cosine, dtype=np.float64), CLOSEST)
    return np.asarray(-np.log10(distance))
