"""A quantity per answer token, and its standard error over questions.

It is a ratio of two sums over questions, such as nats and tokens. Its standard error is that of the
ratio estimator (Cochran, Sampling Techniques, section 6.4), with questions as clusters: tokens of
one answer are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rate:
    """A quantity per answer token.

    Attributes:
        value: sum over questions / tokens.
        standard_error: of `value`; None for a single question.
        tokens: number of answer tokens.
    """

    value: float
    standard_error: float | None
    tokens: int

    @property
    def z(self) -> float | None:
        """The value in standard errors; None without one."""
        return self.value / self.standard_error if self.standard_error else None


def rate(sums: Sequence[float], tokens: Sequence[int]) -> Rate:
    """Estimate a quantity per token, with questions as clusters.

    Args:
        sums: of the quantity over the tokens of each question, [questions].
        tokens: of each question, [questions]; at least one in all.
    """
    x, n = np.asarray(sums, dtype=float), np.asarray(tokens, dtype=float)
    value = math.fsum(x) / n.sum()
    residuals = x - value * n
    clusters = len(x)
    error = None
    if clusters > 1:
        error = math.sqrt(clusters / (clusters - 1) * math.fsum(residuals**2)) / n.sum()
    return Rate(float(value), None if error is None else float(error), int(n.sum()))
