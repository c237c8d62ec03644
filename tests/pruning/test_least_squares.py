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


def sums_of(*batches: tuple[torch.Tensor, ...]) -> Sums:
    sums = Sums.of_width(batches[0][0].shape[1])
    for batch in batches:
        sums.add(*batch)
    return sums


@given(SEEDS, TOKENS, WIDTHS, RIDGES)
@settings(deadline=None)
def test_the_map_is_that_of_the_stacked_problem_of_all_batches(
    seed: int, n: int, width: int, ridge: float
) -> None:
    m, state, z = tokens(seed, n, width)
    cut = seed % n
    transform = solve(
        sums_of((m[cut:], state[cut:], z[cut:]), (m[:cut], state[:cut], z[:cut])), ridge
    )
    signal, target = m.double().numpy(), (z.double() - (state.double() - m.double())).numpy()
    strength = np.sqrt(ridge * np.mean(np.sum(signal**2, 0))) * np.eye(width)
    stacked, stacked_target = np.concatenate([signal, strength]), np.concatenate([target, strength])
    np.testing.assert_allclose(transform, np.linalg.lstsq(stacked, stacked_target)[0], atol=1e-8)


@given(SEEDS, TOKENS, WIDTHS, RIDGES)
@settings(deadline=None)
def test_the_residual_of_sums_is_that_of_the_tokens(
    seed: int, n: int, width: int, ridge: float
) -> None:
    m, state, z = (values.double() for values in tokens(seed, n, width))
    sums = sums_of((m, state, z))
    transform = solve(sums, ridge)
    mapped = m @ transform + state - m
    scale = z.square().sum()
    assert sums.residual() == pytest.approx(((z - state).square().sum() / scale).item())
    expected = ((z - mapped).square().sum() / scale).item()
    assert sums.residual(transform) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_sums_that_are_not_finite_are_refused(value: float) -> None:
    m, state, z = tokens(0, 5, 3)
    z[2, 1] = value
    with pytest.raises(ContractError, match="not finite"):
        solve(sums_of((m, state, z)), 1e-2)


def test_a_signal_of_zeros_is_refused() -> None:
    with pytest.raises(ContractError, match="raise the ridge"):
        solve(Sums.of_width(3), 1e-2)
