"""The cosine objective of ReplaceMe (arXiv 2505.02819), minimised by gradient descent.

A linear map T of what the MLP of the kept layer before a cut adds to the state: it minimises the
mean over tokens of `1 - cos(M T + Y, Z)`. N tokens, d units of width; rows are tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

STEPS, BATCH, SEED = 1600, 256, 0
RATES = (1e-3, 3e-3)  # of learning, at the first step; they fall linearly to zero


@dataclass(frozen=True)
class Tokens:
    """Tokens before a cut.

    Attributes:
        signal: M [N, d], the summand of the state that the map changes.
        rest: Y [N, d], the state without it.
        target: Z [N, d], the state to reach.
    """

    signal: Tensor
    rest: Tensor
    target: Tensor

    def at(self, numbers: Tensor) -> Tokens:
        """Return some tokens by their numbers."""
        return Tokens(self.signal[numbers], self.rest[numbers], self.target[numbers])


def cosine_distance(transform: Tensor, tokens: Tokens) -> Tensor:
    """Return the mean over tokens of `1 - cos(M T + Y, Z)`, a scalar."""
    states = tokens.signal @ transform + tokens.rest  # [N, d]
    return (1 - cosine_similarity(states, tokens.target, dim=-1)).mean()


def descend(start: Tensor, tokens: Tokens, rate: float, steps: int) -> Tensor:
    """Minimise the cosine distance by Adam on random batches.

    Args:
        start: T [d, d].
        tokens: at least one.
        rate: of learning.
        steps: one batch each.
    """
    generator = torch.Generator().manual_seed(SEED)
    transform = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([transform], lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=steps)
    for _ in range(steps):
        batch = tokens.at(torch.randint(len(tokens.target), (BATCH,), generator=generator))
        optimiser.zero_grad()
        cosine_distance(transform, batch).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return transform.detach()


def nearest(
    start: Tensor, tokens: Tokens, heldout: Tokens, rates: Sequence[float] = RATES
) -> Tensor:
    """Descend at several rates; return the map of least cosine distance on held-out tokens."""
    maps = [descend(start, tokens, rate, STEPS) for rate in sorted(rates)]
    return min(maps, key=lambda transform: cosine_distance(transform, heldout).item())
