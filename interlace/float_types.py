"""Floating-point numbers from one stored type to another, rounded as PyTorch rounds them.

Types go by the safetensors format's names. Every conversion goes through float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FLOATS = {"F16": np.float16, "BF16": np.uint16, "F32": np.float32, "F64": np.float64}  # as stored


def converted(raw: Any, source: str, target: str) -> bytes:
    """Numbers in another type; to fewer digits, to the nearest, ties to even.

    Args:
        raw: the bytes of the numbers, little-endian.
        source: their type, a key of `FLOATS`.
        target: the type wanted, a key of `FLOATS`.

    Raises:
        OverflowError: a finite number is too large for `target`.
    """
    numbers = np.frombuffer(raw, FLOATS[source])
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        wide = _from_bfloat16(numbers) if source == "BF16" else numbers.astype(np.float32)
        narrow = _to_bfloat16(wide) if target == "BF16" else wide.astype(FLOATS[target])
    before = wide if source == "BF16" else numbers
    after = _from_bfloat16(narrow) if target == "BF16" else narrow
    lost = np.isfinite(before) & ~np.isfinite(after)
    if lost.any():
        raise OverflowError(f"{before[lost][0]:.6g} is too large for {target}")
    return narrow.tobytes()


def _from_bfloat16(bits: Any) -> Any:
    """The upper halves of float32 numbers -> the numbers."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _to_bfloat16(numbers: Any) -> Any:
    """float32 numbers -> the upper halves of the nearest ones whose lower half is zero."""
    bits = numbers.view(np.uint32)
    odd = (bits >> 16) & 1
    nearest = (bits + 0x7FFF + odd) >> 16
    return np.where(np.isnan(numbers), 0x7FC0, nearest).astype(np.uint16)
