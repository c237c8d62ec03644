"""Numbers are converted as PyTorch converts them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interlace.checkpoint.safetensors import FLOATS, converted

TORCH = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
PAIRS = [(source, target) for source in FLOATS for target in FLOATS]
EVERY_HALF = np.arange(2**16, dtype=np.uint16).tobytes()  # each bit pattern of 16


def by_torch(raw: bytes, source: str, target: str) -> torch.Tensor:
    numbers = torch.frombuffer(bytearray(raw), dtype=TORCH[source])
    return numbers.to(torch.float32).to(TORCH[target])


def ours(raw: bytes, source: str, target: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(converted(raw, source, target)), dtype=TORCH[target])


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """The same bits, but for which NaN."""
    same = one.view(torch.uint8).view(len(one), -1) == other.view(torch.uint8).view(len(one), -1)
    return bool((same.all(1) | (one.isnan() & other.isnan())).all())


@pytest.mark.parametrize("source", ["F16", "BF16"])
@pytest.mark.parametrize("target", ["BF16", "F32", "F64"])
def test_every_number_of_16_bits(source: str, target: str) -> None:
    assert alike(ours(EVERY_HALF, source, target), by_torch(EVERY_HALF, source, target))


@pytest.mark.parametrize(("source", "target"), PAIRS)
@given(values=st.lists(st.floats(-65000, 65000, width=32), min_size=1, max_size=50))
def test_numbers_of_any_type(source: str, target: str, values: list[float]) -> None:
    raw = torch.tensor(values, dtype=TORCH[source]).view(torch.uint8).numpy().tobytes()
    assert alike(ours(raw, source, target), by_torch(raw, source, target))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=200))
def test_any_32_bits_as_bfloat16(patterns: list[int]) -> None:
    raw = np.array(patterns, np.uint32).tobytes()
    expected = by_torch(raw, "F32", "BF16")
    finite = torch.frombuffer(bytearray(raw), dtype=torch.float32).isfinite()
    if (finite & ~expected.isfinite()).any():
        with pytest.raises(OverflowError):
            converted(raw, "F32", "BF16")
    else:
        assert alike(ours(raw, "F32", "BF16"), expected)


def test_ties_go_to_even() -> None:
    raw = np.array([0x3F808000, 0x3F818000, 0x3F808001], np.uint32).tobytes()
    assert np.frombuffer(converted(raw, "F32", "BF16"), np.uint16).tolist() == [
        0x3F80,
        0x3F82,
        0x3F81,
    ]


@pytest.mark.parametrize(
    ("source", "target", "value"),
    [("F32", "F16", 7e4), ("BF16", "F16", -1e5), ("F64", "F32", 1e39)],
)
def test_a_number_that_is_too_large_is_named(source: str, target: str, value: float) -> None:
    raw = torch.tensor([1.0, value], dtype=TORCH[source]).view(torch.uint8).numpy().tobytes()
    with pytest.raises(OverflowError, match=rf"e\+|0 is too large for {target}"):
        converted(raw, source, target)


def test_infinity_stays_what_it_is() -> None:
    raw = np.array([np.inf, -np.inf], np.float32).tobytes()
    assert ours(raw, "F32", "F16").tolist() == [float("inf"), float("-inf")]
