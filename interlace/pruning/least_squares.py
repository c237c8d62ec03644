"""Least squares on sums: the change of a linear layer that brings a state nearest to its target.

Each token is scaled by the length of its target, so that every token counts by its relative error:
the next layer normalises each token before it reads it, and a massive activation, whose length is
hundreds of times the others', outweighs none. Shapes: N tokens, p columns of the layer's input, d
of its output, the decoder's width. Rows are tokens. All sums are float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from interlace.errors import ContractError


@dataclass
class Sums:
    """Sums over tokens that suffice for the solution and its residual.

    With row t of the input A and of the error E divided by the length of target t:

    Attributes:
        gram: `A'A` [p, p].
        cross: `A'E` [p, d].
        error: `||E||^2`.
        tokens: the number of tokens.
    """

    gram: Tensor
    cross: Tensor
    error: float = 0.0
    tokens: int = 0

    @classmethod
    def of_size(cls, columns: int, width: int, device: torch.device | str = "cpu") -> Sums:
        """Return the sums of no tokens."""
        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        return cls(zeros(columns, columns), zeros(columns, width))

    def add(self, signal: Tensor, state: Tensor, target: Tensor) -> None:
        """Add tokens; one whose target is zero is skipped.

        Args:
            signal: A [N, p], the input of the linear layer, scaled as its output is added.
            state: the model's states, [N, d].
            target: the states to reach, [N, d].
        """
        target = target.double()
        length = target.norm(dim=-1, keepdim=True)  # [N, 1]
        counted = length[:, 0] != 0  # NaN counts, and is refused by `solve`
        length, target = length[counted], target[counted]
        signal = signal[counted].double() / length
        error = (target - state[counted].double()) / length
        self.gram += signal.mT @ signal
        self.cross += signal.mT @ error
        self.error += error.square().sum().item()
        self.tokens += len(error)

    def residual(self, change: Tensor | None = None) -> float:
        """Return the mean over tokens of the squared error relative to the target's square.

        Args:
            change: D [p, d], added to the transposed weight; `None`: no change.
        """
        error = self.error
        if change is not None:
            change = change.to(self.gram.device)
            error += ((self.gram @ change - 2 * self.cross) * change).sum().item()
        return max(error, 0.0) / self.tokens if self.tokens else 0.0


def solve(sums: Sums, ridge: float) -> Tensor:
    """Solve ridge regression for the change D of least error: `min ||A D - E||^2 + lambda ||D||^2`.

    It is `(A'A + lambda I) D = A'E`, solved by Cholesky on the device of the sums.

    Args:
        sums: of all tokens.
        ridge: lambda as a multiple of the mean of the diagonal of `A'A`.

    Returns:
        D [p, d] float64.

    Raises:
        ContractError: a sum is not finite, or the signal is zero everywhere.
    """
    if not (sums.gram.isfinite().all() and sums.cross.isfinite().all()):
        raise ContractError("least squares: a sum over tokens is not finite")
    strength = ridge * sums.gram.diagonal().mean()
    regular = sums.gram.clone()
    regular.diagonal().add_(strength)
    factor, failed = torch.linalg.cholesky_ex(regular)
    if failed:
        raise ContractError("least squares: the signal does not span its space; raise the ridge")
    return torch.cholesky_solve(sums.cross, factor)


@dataclass(frozen=True)
class Solution:
    """A change of a linear layer, and what it does to held-out tokens.

    Attributes:
        change: D [p, d] float64, added to the transposed weight.
        ridge: see `solve`.
        residual_before: see `Sums.residual`, without the change.
        residual_after: the same with it.
    """

    change: Tensor
    ridge: float
    residual_before: float
    residual_after: float


def best_of(sums: Sums, heldout: Sums, ridges: Sequence[float]) -> Solution:
    """Solve with each ridge; return the solution whose residual on held-out tokens is least.

    Raises:
        ContractError: as `solve`.
    """
    before = heldout.residual()
    changes = {ridge: solve(sums, ridge) for ridge in ridges}
    solutions = [Solution(d, ridge, before, heldout.residual(d)) for ridge, d in changes.items()]
    return min(solutions, key=lambda solution: (solution.residual_after, solution.ridge))
