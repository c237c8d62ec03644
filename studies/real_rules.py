"""Rules of compensation: which weights are fitted, where, and by which error.

The library fits the whole weight of each kept layer from the first cut on, by errors relative to
the length of each token's target. Each other rule changes one or two of these. ReplaceMe's own
(arXiv 2505.02819) fit a d x d map before each cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from interlace.pruning import compensation
from interlace.pruning.compensation import RIDGES, Cut, Repair, Weights, refused
from interlace.pruning.least_squares import Solution, Sums, best_of
from interlace.pruning.mlp import last_linear, residual_multiplier
from interlace.pruning.new_values import Fit
from interlace.pruning.passage import Passage
from interlace.pruning.report import CutReport
from studies.real_cosine import Tokens, nearest

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


class ByAllTokens(Repair):
    """The library's fit, by squared errors."""

    sums_type = AllTokens


class ByOtherTokens(Repair):
    """The library's fit, by squared errors of all but massive tokens."""

    sums_type = WithoutSinks


class BeforeCuts(Repair):
    """The library's fit, of the kept layer before each run of dropped ones alone."""

    def fit(self, cut: Cut, loss: float, put: Callable[[Weights], None]) -> Fit:
        """Fit a layer that a dropped one follows; see `Repair.fit`."""
        if cut.dropped:
            return super().fit(cut, loss, put)
        report = CutReport(cut=[], folded_into=cut.layer, heldout_before=loss, kept=False)
        return refused(report, "no layer is dropped after it")


class RelativeMap(BeforeCuts):
    """A map T of what the MLP adds, by relative errors, folded into its last weight."""

    def solution(self, layer: int) -> Solution:
        """Fit T = I + C, [d, d]; return the change `W' C` of the transposed weight, [p, d]."""
        weight = last_linear(self.model, layer)[1].weight.detach()  # W [d, p]
        solution = self.map(self.tokens(layer, self.fitted), self.tokens(layer, self.heldout))
        return replace(solution, change=weight.double().mT @ solution.change)

    def map(self, fitted: Tokens, heldout: Tokens) -> Solution:
        """Fit a map; the solution's change is C."""
        return best_of(self.added(fitted), self.added(heldout), RIDGES)

    def added(self, tokens: Tokens) -> Sums:
        """Return the sums over tokens."""
        width = tokens.signal.shape[1]
        sums = self.sums_type.of_size(width, width, tokens.signal.device)
        sums.add(tokens.signal, tokens.signal + tokens.rest, tokens.target)
        return sums

    def tokens(self, layer: int, passage: Passage) -> Tokens:
        """Return all valid tokens of some samples."""
        weight = last_linear(self.model, layer)[1].weight.detach()
        weight = weight * residual_multiplier(self.model)
        inputs, states, targets = zip(
            *passage.signals(last_linear(self.model, layer)[1]), strict=True
        )
        signal = torch.cat(inputs) @ weight.mT  # [N, d]
        return Tokens(signal, torch.cat(states) - signal, torch.cat(targets))


class SquaredMap(RelativeMap):
    """The same by squared errors of all tokens: ReplaceMe's least squares."""

    sums_type = AllTokens


class CosineMap(RelativeMap):
    """The same by the cosine distance, from the map by relative errors on."""

    def map(self, fitted: Tokens, heldout: Tokens) -> Solution:
        """Fit a map; see `RelativeMap.map`."""
        start = super().map(fitted, heldout)
        identity = torch.eye(len(start.change), dtype=start.change.dtype)
        nearer = nearest((identity + start.change).to(fitted.signal.dtype), fitted, heldout)
        change = nearer.double() - identity
        return replace(start, change=change, residual_after=self.added(heldout).residual(change))


REPAIRS: dict[str, type[Repair]] = {  # the library's own first
    "by inverse norm": Repair,
    "all tokens": ByAllTokens,
    "without sinks": ByOtherTokens,
    "weight before cuts": BeforeCuts,
    "map by inverse norm": RelativeMap,
    "map before cuts": SquaredMap,
    "cosine": CosineMap,
}
RULES = tuple(REPAIRS)


@contextmanager
def following(rule: str) -> Iterator[None]:
    """Compensate by a rule in the block, in place of the library's own."""
    compensation.Repair = REPAIRS[rule]  # type: ignore[misc]
    try:
        yield
    finally:
        compensation.Repair = Repair  # type: ignore[misc]
