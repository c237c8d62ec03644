"""Least squares on sums: the linear map of a signal that brings a state nearest to its target.

Shapes: N tokens, d the decoder's width. Rows are tokens. All sums are float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interlace.errors import ContractError


@dataclass
class Sums:
    """Sums over tokens that suffice for the solution and its residual.

    Attributes:
        gram: `M'M` [d, d] of the signal.
        cross: `M'E` [d, d] of the signal and the error.
        error: `||E||^2`.
        target: `||X||^2` of the target states, to scale residuals.
    """

    gram: Tensor
    cross: Tensor
    error: float = 0.0
    target: float = 0.0

    @classmethod
    def of_width(cls, width: int, device: torch.device | str = "cpu") -> Sums:
        """Return the sums of no tokens."""
        zeros = torch.zeros(width, width, dtype=torch.float64, device=device)
        return cls(zeros, zeros.clone())

    def add(self, signal: Tensor, state: Tensor, target: Tensor) -> None:
        """Add tokens.

        Args:
            signal: M [N, d], the summand of the state that the map changes.
            state: the model's states, [N, d].
            target: X [N, d], the states to reach.
        """
        signal, state, target = signal.double(), state.double(), target.double()
        error = target - state
        self.gram += signal.mT @ signal
        self.cross += signal.mT @ error
        self.error += error.square().sum().item()
        self.target += target.square().sum().item()

    def residual(self, transform: Tensor | None = None) -> float:
        """Return the squared error relative to the target: `||M(T - I) - E||^2 / ||X||^2`.

        Args:
            transform: T [d, d]; `None`: the identity, which changes nothing.
        """
        error = self.error
        if transform is not None:
            change = transform.to(self.gram.device) - _identity(self.gram)  # T - I
            error += ((self.gram @ change - 2 * self.cross) * change).sum().item()
        return max(error, 0.0) / self.target if self.target else 0.0


def solve(sums: Sums, ridge: float) -> Tensor:
    """Solve ridge regression for the map T of least error, shrunk towards the identity.

    With `E = Z - Y - M`, where `M + Y` is the state and Z its target, `T = I + S` and
    `(M'M + lambda I) S = M'E`, which is `(M'M + lambda I) T = M'(Z - Y) + lambda I`: the minimum of
    `||M T + Y - Z||^2 + lambda ||T - I||^2`. Solved by Cholesky on the CPU.

    Args:
        sums: of all tokens.
        ridge: lambda as a multiple of the mean of the diagonal of `M'M`.

    Returns:
        T [d, d] float64 on the CPU.

    Raises:
        ContractError: a sum is not finite, or the signal is zero everywhere.
    """
    gram, cross = sums.gram.cpu(), sums.cross.cpu()
    if not (gram.isfinite().all() and cross.isfinite().all()):
        raise ContractError("least squares: a sum over tokens is not finite")
    strength = ridge * gram.diagonal().mean()
    factor, failed = torch.linalg.cholesky_ex(gram + strength * _identity(gram))
    if failed:
        raise ContractError("least squares: the signal does not span its space; raise the ridge")
    return _identity(gram) + torch.cholesky_solve(cross, factor)


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[0], dtype=like.dtype, device=like.device)
