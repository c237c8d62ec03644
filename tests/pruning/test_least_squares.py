"""The map from sums is the one that a slow solver finds on all tokens at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interlace.errors import ContractError
from interlace.pruning.least_squares import Sums, solve

SEEDS = st.integers(0, 10_000)
WIDTHS = st.integers(1, 7)
TOKENS = st.integers(1, 40)
RIDGES = st.sampled_from([1e-4, 1e-2, 1.0])


def tokens(seed: int, n: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the MLP gives (M), the state with it (M + Y), and what is wanted (Z), float32."""
    random = torch.Generator().manual_seed(seed)
    m, y, z = (torch.randn(n, width, generator=random) for _ in range(3))
    return m, m + y, z


def sums_of(parts: list[tuple[torch.Tensor, ...]]) -> Sums:
    sums = Sums.of_width(parts[0][0].shape[1])
    for part in parts:
        sums.add(*part)
    return sums


@given(SEEDS, TOKENS, WIDTHS, RIDGES)
@settings(deadline=None)
def test_the_map_is_that_of_the_stacked_problem(
    seed: int, n: int, width: int, ridge: float
) -> None:
    m, state, z = tokens(seed, n, width)
    found = solve(sums_of([(m, state, z)]), ridge)
    signal, wanted = m.double().numpy(), (z.double() - (state.double() - m.double())).numpy()
    strength = np.sqrt(ridge * np.mean(np.sum(signal**2, 0)))
    stacked = np.concatenate([signal, strength * np.eye(width)])
    target = np.concatenate([wanted, strength * np.eye(width)])
    np.testing.assert_allclose(found, np.linalg.lstsq(stacked, target)[0], atol=1e-8)


@given(SEEDS, TOKENS, WIDTHS, RIDGES)
@settings(deadline=None)
def test_the_residual_of_sums_is_that_of_the_tokens(
    seed: int, n: int, width: int, ridge: float
) -> None:
    m, state, z = (part.double() for part in tokens(seed, n, width))
    sums = sums_of([(m, state, z)])
    transform = solve(sums, ridge)
    mapped = m @ transform + state - m
    scale = z.square().sum()
    assert sums.residual() == pytest.approx(((z - state).square().sum() / scale).item())
    expected = ((z - mapped).square().sum() / scale).item()
    assert sums.residual(transform) == pytest.approx(expected, abs=1e-10)


@given(SEEDS, TOKENS, WIDTHS, RIDGES)
@settings(deadline=None)
def test_the_residual_never_rises(seed: int, n: int, width: int, ridge: float) -> None:
    sums = sums_of([tokens(seed, n, width)])
    assert sums.residual(solve(sums, ridge)) <= sums.residual() + 1e-12


@given(SEEDS, st.integers(3, 40), WIDTHS)
@settings(deadline=None)
def test_neither_order_nor_batches_matter(seed: int, n: int, width: int) -> None:
    every = tokens(seed, n, width)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    cut = 1 + seed % (n - 1)
    parts = [tuple(part[order][:cut] for part in every), tuple(part[order][cut:] for part in every)]
    whole, split = (solve(sums_of(each), 1e-2) for each in ([every], parts))
    torch.testing.assert_close(whole, split, rtol=1e-9, atol=1e-11)


def test_without_a_ridge_a_linear_lack_is_made_up_for() -> None:
    m, state, _ = (part.double() for part in tokens(0, 50, 6))
    change = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sums = sums_of([(m, state, state + m @ change)])
    transform = solve(sums, 1e-14)
    torch.testing.assert_close(transform, torch.eye(6, dtype=torch.float64) + change)
    assert sums.residual(transform) < 1e-12 < sums.residual()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_sums_that_are_not_finite_are_refused(value: float) -> None:
    m, state, z = tokens(0, 5, 3)
    z[2, 1] = value
    with pytest.raises(ContractError, match="not finite"):
        solve(sums_of([(m, state, z)]), 1e-2)


def test_a_signal_of_zeros_is_refused() -> None:
    with pytest.raises(ContractError, match="raise the ridge"):
        solve(Sums.of_width(3), 1e-2)
