"""The change from sums is the one that a slow solver finds on all tokens at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interlace.errors import ContractError
from interlace.pruning.least_squares import Sums, best_of, solve

SEEDS = st.integers(0, 10_000)
WIDTHS = st.integers(1, 7)
TOKENS = st.integers(2, 40)
RIDGES = st.sampled_from([1e-4, 1e-2, 1.0])
Tokens = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def tokens(seed: int, n: int, width: int) -> Tokens:
    """The linear layer's input, the state, and what is wanted, float32."""
    random = torch.Generator().manual_seed(seed)
    signal = torch.randn(n, width + 2, generator=random)
    return signal, *(torch.randn(n, width, generator=random) for _ in range(2))


def sums_of(*batches: Tokens) -> Sums:
    sums = Sums.of_size(batches[0][0].shape[1], batches[0][1].shape[1])
    for batch in batches:
        sums.add(*batch)
    return sums


def relative(batch: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """The input and the error of each token, divided by the length of its target."""
    signal, state, target = (values.double().numpy() for values in batch)
    length = np.sqrt((target**2).sum(1, keepdims=True))
    return signal / length, (target - state) / length


@given(SEEDS, TOKENS, WIDTHS, RIDGES)
def test_the_change_is_that_of_the_stacked_problem_of_all_batches(
    seed: int, n: int, width: int, ridge: float
) -> None:
    batch = tokens(seed, n, width)
    cut = seed % n
    parts = [tuple(v[cut:] for v in batch), tuple(v[:cut] for v in batch)]
    change = solve(sums_of(*parts), ridge)
    signal, error = relative(batch)
    columns = signal.shape[1]
    strength = np.sqrt(ridge * np.mean(np.sum(signal**2, 0))) * np.eye(columns)
    stacked = np.concatenate([signal, strength])
    expected = np.linalg.lstsq(stacked, np.concatenate([error, np.zeros((columns, width))]))[0]
    np.testing.assert_allclose(change, expected, atol=1e-8)


@given(SEEDS, TOKENS, WIDTHS, RIDGES)
def test_the_residual_of_sums_is_the_mean_of_the_tokens(
    seed: int, n: int, width: int, ridge: float
) -> None:
    batch, other = tokens(seed, n, width), tokens(seed + 1, n + 1, width)
    sums = sums_of(batch)
    change = solve(sums, ridge)
    for measured in (sums, sums_of(other)):
        signal, error = relative(batch if measured is sums else other)
        assert measured.residual() == pytest.approx((error**2).sum(1).mean())
        expected = ((error - signal @ change.numpy()) ** 2).sum(1).mean()
        assert measured.residual(change) == pytest.approx(expected, rel=1e-9, abs=1e-10)


@given(SEEDS, st.floats(2, 1e4))
def test_a_massive_activation_counts_as_any_other_token(seed: int, size: float) -> None:
    batch = tokens(seed, 30, 4)
    larger = tuple(values.clone() for values in batch)
    for values in larger:
        values[7] *= size
    change = solve(sums_of(batch), 1e-2)
    torch.testing.assert_close(solve(sums_of(larger), 1e-2), change, rtol=1e-4, atol=1e-6)


def test_a_sink_that_the_layer_adds_little_to_does_not_change_the_fit() -> None:
    signal, state, target = tokens(0, 200, 4)
    state[0], target[0] = 1e4, 1e4 + 100  # its error is fifty times the others'
    with_sink = solve(sums_of((signal, state, target)), 1e-2)
    without = solve(sums_of((signal[1:], state[1:], target[1:])), 1e-2)
    assert (with_sink - without).norm() < 1e-3 * without.norm()


def test_a_token_without_a_target_is_skipped() -> None:
    signal, state, target = tokens(0, 9, 3)
    target[4] = 0
    others = [n for n in range(9) if n != 4]
    sums = sums_of((signal, state, target))
    expected = sums_of((signal[others], state[others], target[others]))
    assert sums.tokens == 8
    torch.testing.assert_close(sums.gram, expected.gram)
    assert sums.residual() == pytest.approx(expected.residual())


def test_the_ridge_is_that_of_the_least_heldout_residual() -> None:
    sums, heldout = sums_of(tokens(0, 12, 4)), sums_of(tokens(1, 12, 4))
    ridges = (1e-3, 1.0, 1e3)
    solution = best_of(sums, heldout, ridges)
    residuals = {r: heldout.residual(solve(sums, r)) for r in ridges}
    assert solution.ridge == min(residuals, key=residuals.__getitem__) == 1e3
    torch.testing.assert_close(solution.change, solve(sums, 1e3))
    assert (solution.residual_before, solution.residual_after) == (
        heldout.residual(),
        residuals[1e3],
    )
    assert best_of(sums, sums, ridges).ridge == 1e-3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_sums_that_are_not_finite_are_refused(value: float) -> None:
    signal, state, target = tokens(0, 5, 3)
    target[2, 1] = value
    with pytest.raises(ContractError, match="not finite"):
        solve(sums_of((signal, state, target)), 1e-2)


def test_a_signal_of_zeros_is_refused() -> None:
    with pytest.raises(ContractError, match="raise the ridge"):
        solve(Sums.of_size(5, 3), 1e-2)
