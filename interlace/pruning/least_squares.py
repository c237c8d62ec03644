"""Least squares on sums: a linear correction of one signal that makes up for the lack of another.

Shapes: N tokens, d the decoder's width. Rows are tokens. All sums are float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interlace.errors import ContractError


@dataclass
class Sums:
    """What is kept of any number of tokens: enough for the solution and for its residual.

    Attributes:
        gram: `M'M` [d, d] of the signal.
        cross: `M'E` [d, d] of the signal and what is lacking.
        lacking: `||E||^2`.
        wanted: `||X||^2` of the states that are wanted, to hold residuals against.
    """

    gram: Tensor
    cross: Tensor
    lacking: float = 0.0
    wanted: float = 0.0

    @classmethod
    def of_width(cls, width: int, device: torch.device | str = "cpu") -> Sums:
        """Sums of no tokens."""
        zeros = torch.zeros(width, width, dtype=torch.float64, device=device)
        return cls(zeros, zeros.clone())

    def add(self, signal: Tensor, state: Tensor, wanted: Tensor) -> None:
        """Add some tokens.

        Args:
            signal: M [N, d], the part of the state that can be changed.
            state: what the model has, [N, d].
            wanted: what it should have, [N, d].
        """
        signal, state, wanted = signal.double(), state.double(), wanted.double()
        error = wanted - state
        self.gram += signal.mT @ signal
        self.cross += signal.mT @ error
        self.lacking += error.square().sum().item()
        self.wanted += wanted.square().sum().item()

    def residual(self, transform: Tensor | None = None) -> float:
        """What is lacking as a share of what is wanted: `||M(T - I) - E||^2 / ||X||^2`.

        Args:
            transform: T [d, d]; none: the identity, which changes nothing.
        """
        left = self.lacking
        if transform is not None:
            change = transform.to(self.gram.device) - _identity(self.gram)  # T - I
            left += ((self.gram @ change - 2 * self.cross) * change).sum().item()
        return max(left, 0.0) / self.wanted if self.wanted else 0.0


def solve(sums: Sums, ridge: float) -> Tensor:
    """The linear map T that makes `M T` lack least, held towards the identity.

    With `E = Z - Y - M`, where `M + Y` is the state and Z is wanted, `T = I + S` and
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
