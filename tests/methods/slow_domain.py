"""The mixed ranking of layers, as arXiv 2603.20275 puts it (eq. 8, 9)."""

from __future__ import annotations

import math


def z_scores(values: dict[int, float], layers: list[int]) -> dict[int, float]:
    """How many standard deviations each of these layers lies above their mean; 0 if all agree."""
    mean = sum(values[i] for i in layers) / len(layers)
    variance = sum((values[i] - mean) ** 2 for i in layers) / len(layers)
    if len({values[i] for i in layers}) == 1:
        return dict.fromkeys(layers, 0.0)
    return {i: (values[i] - mean) / math.sqrt(variance) for i in layers}


def mixed_ranking(
    math_scores: dict[int, float],
    nonmath_scores: dict[int, float],
    prunable: list[int],
    alpha: float,
) -> dict[int, float]:
    """`R_l = alpha * Snon_l + (1 - alpha) * Smath_l` of the prunable layers' z-scores.

    Rounded, so that layers of equal rank are equal.
    """
    snon, smath = z_scores(nonmath_scores, prunable), z_scores(math_scores, prunable)
    return {i: round(alpha * snon[i] + (1 - alpha) * smath[i], 9) for i in prunable}
