"""Rules of compensation: how much each token counts in the least squares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from interlace.pruning import compensation
from interlace.pruning.least_squares import Sums

MASSIVE = 10.0  # norm of a massive token over the median of its batch, at least


class AllTokens(Sums):
    """Sums in which each token counts by its squared error, however long it is."""

    def add(self, signal: Tensor, state: Tensor, target: Tensor) -> None:
        """Add tokens; see `Sums.add`."""
        signal, error = signal.double(), target.double() - state.double()
        self.gram += signal.mT @ signal
        self.cross += signal.mT @ error
        self.error += error.square().sum().item()
        self.tokens += len(error)


class WithoutSinks(AllTokens):
    """The same without massive tokens: those that are, or should become, far longer than others."""

    def add(self, signal: Tensor, state: Tensor, target: Tensor) -> None:
        """Add tokens; see `Sums.add`."""
        norms = torch.maximum(state.norm(dim=-1), target.norm(dim=-1))  # [N]
        counted = norms < MASSIVE * norms.median()
        super().add(signal[counted], state[counted], target[counted])


SUMS: dict[str, type[Sums]] = {  # the library's own first
    "by inverse norm": Sums,
    "all tokens": AllTokens,
    "without sinks": WithoutSinks,
}
RULES = tuple(SUMS)


@contextmanager
def following(rule: str) -> Iterator[None]:
    """Compensate by a rule in the block, in place of the library's own."""
    compensation.Sums = SUMS[rule]  # type: ignore[misc]
    try:
        yield
    finally:
        compensation.Sums = Sums  # type: ignore[misc]
