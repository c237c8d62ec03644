"""Numbers rounded to what they mean: metrics are the same whichever processor measured them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

DIGITS = 4  # of a loss, a score, a time
ERROR_DIGITS = 3  # of a standard error that are kept of the number itself
COSINE_DIGITS = 3  # of a mean cosine's distance from 1; its standard error is in the third


def significant(value: float, digits: int = DIGITS) -> float:
    """Round a number to its first digits."""
    return _rounded(value, value, digits)


def cosine(value: float) -> float:
    """Round a cosine to the first digits of its distance from 1."""
    return _rounded(value, 1 - value, COSINE_DIGITS)


def numbers_rounded(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Round the fractions among some values, and leave all others.

    A number `NAME` with a `NAME_error` is rounded to the third digit of it.
    """
    result = dict(numbers)
    for name, value in numbers.items():
        if not isinstance(value, float):
            continue
        error = numbers.get(f"{name}_error")
        result[name] = _rounded(value, error, ERROR_DIGITS) if error else significant(value)
    return result


def _rounded(value: float, scale: float, digits: int) -> float:
    """Round a number so that one of the size of `scale` has that many digits."""
    if not math.isfinite(value) or scale == 0:
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(scale))))
