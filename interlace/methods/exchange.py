"""Exchange search: sets of layers whose removal raises a loss least, with few of them measured.

Rankings of layers add up single effects, and effects are not additive. So whole sets are measured,
on a share of the rows at first: single layers, blocks, and the layers that do least harm singly;
then, size by size, sets that differ by exchanges of dropped for kept layers. All sets measured so
far predict which of these are worth it. The best of each size are measured on all rows, and the
lowest loss wins. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from interlace.errors import InputError
from interlace.model.paths import Layers, layer_runs

SETS_PER_ROUND = 8
_ORIGINS = 4  # sets of each size whose exchanges are candidates
_BEAM = 16  # unmeasured sets whose exchanges are candidates too, by prediction
_DEPTH = 2  # times that this is repeated: exchanges of three layers at once
_SCREENING = 0.75  # share of the budget before the best sets are measured on all rows
_PATIENCE = 2  # sweeps over all sizes without a better set, after which screening ends
_MOST_FINALISTS = 8  # of each size
# Variances of the effects of a layer, of a pair and of a whole set, and of measurements; and the
# number of layers after which two sets are no longer alike.
_SINGLE, _PAIR, _NEAR, _NOISE, _REACH = 0.1, 0.01, 0.5, 1e-3, 3.0


@dataclass(frozen=True)
class Trial:
    """One measurement of a set.

    Attributes:
        round: counted from 0; single layers and blocks have 0, singly harmless ones 1.
        drop: the set, sorted.
        screened: it is measured on a share of the rows alone.
        loss: mean over answer tokens.
        exchanged: layers that the best set of its size before the round has and it has not; `None`
            where there was none.
        accepted: no set of its size had a lower loss on these rows.
    """

    round: int
    drop: Layers
    screened: bool
    loss: float
    exchanged: int | None
    accepted: bool


@dataclass
class ExchangeSearch:
    """A search for the best sets of 1 to `largest` layers.

    Attributes:
        n_layers: L, of the decoder.
        free: layers that may go.
        largest: K of the largest sets.
        passes: budget: forward passes over all rows, counted in layers that run.
        share: of the tokens of all rows, that screening measures; 1: there is no screening.
        measure: returns the losses of sets, on that share or on all rows.
        trials: all measurements so far.
        spent: passes so far.
    """

    n_layers: int
    free: Layers
    largest: int
    passes: float
    share: float
    measure: Callable[[Sequence[Layers], bool], Sequence[float]]
    trials: list[Trial] = field(default_factory=list)
    spent: float = 0.0
    round: int = 0

    def run(self) -> dict[int, tuple[Layers, float]]:
        """Search until the budget is spent or nothing better is in sight.

        Returns:
            By size, the best set and its loss on all rows.
        """
        screened = self.share < 1
        self._measure(starts(self.free, self.largest), screened)
        self._measure(sums_of_singles(self.losses(screened), self.largest), screened)
        self._exchange(screened)
        if screened:
            self._confirm()
        by_size = _by_size(self.losses(screened=False))
        return {size: _best(sets) for size, sets in by_size.items() if size}

    def losses(self, screened: bool) -> dict[Layers, float]:
        """Return the losses on one choice of rows, by set."""
        return {trial.drop: trial.loss for trial in self.trials if trial.screened == screened}

    def _measure(self, drops: Sequence[Layers], screened: bool) -> bool:
        """Measure sets of new; return True if one is the best of its size."""
        bests = {n: _best(sets) for n, sets in _by_size(self.losses(screened)).items()}
        losses = dict(zip(drops, self.measure(drops, screened), strict=True))
        lowest = {n: _best(sets)[1] for n, sets in _by_size(losses).items()}
        for drop, loss in losses.items():
            size, best = len(drop), bests.get(len(drop))
            exchanged = len({*best[0]} - {*drop}) if best else None
            accepted = loss == lowest[size] and (best is None or loss < best[1])
            self.trials.append(Trial(self.round, drop, screened, loss, exchanged, accepted))
        share = self.share if screened or self.share == 1 else 1 - self.share
        self.spent += passes_of(self.n_layers, drops, share)
        self.round += 1
        return any(trial.accepted for trial in self.trials[-len(drops) :])

    def _exchange(self, screened: bool) -> None:
        sizes = [*range(2, self.largest + 1)]
        fruitless, limit = 0, self.passes * (_SCREENING if screened else 1)
        while fruitless < _PATIENCE * len(sizes):
            for size in sizes:
                drops = proposals(self.losses(screened), self.free, size, SETS_PER_ROUND)
                cost = passes_of(self.n_layers, drops, self.share)
                if self.spent + cost > limit:
                    return
                better = bool(drops) and self._measure(drops, screened)
                fruitless = 0 if better else fruitless + 1
            sizes.reverse()

    def _confirm(self) -> None:
        """Measure the best sets of each size on all rows: one of each, then more of each."""
        ranked = {
            size: sorted(losses, key=lambda drop: (losses[drop], drop))
            for size, losses in _by_size(self.losses(screened=True)).items()
        }
        for rank in range(_MOST_FINALISTS):
            drops = [sets[rank] for sets in ranked.values() if len(sets) > rank]
            cost = passes_of(self.n_layers, drops, 1 - self.share)
            if not drops or (rank and self.spent + cost > self.passes):
                return
            self._measure(drops, False)


def _by_size(losses: Mapping[Layers, float]) -> dict[int, dict[Layers, float]]:
    sizes: dict[int, dict[Layers, float]] = {}
    for drop, loss in losses.items():
        sizes.setdefault(len(drop), {})[drop] = loss
    return dict(sorted(sizes.items()))


def _best(losses: Mapping[Layers, float]) -> tuple[Layers, float]:
    """Return the set of the lowest loss, of equal ones the first, and its loss."""
    return min(losses.items(), key=lambda item: (item[1], item[0]))


def passes_of(n_layers: int, drops: Sequence[Layers], share: float) -> float:
    """Return the cost of measuring sets on a share of the tokens, forward passes over all."""
    return share * layer_runs(n_layers, drops) / n_layers


def check_passes(passes: int, n_layers: int, free: Layers, largest: int, share: float) -> None:
    """Check that a budget allows exchanges after the sets that are measured first.

    Args:
        passes: forward passes over all rows.
        n_layers: L, of the decoder.
        free: layers that may go.
        largest: K of the largest sets.
        share: of the tokens, that screening measures.

    Raises:
        InputError: it does not; names the least that does.
    """
    first = passes_of(n_layers, starts(free, largest), share)
    first += share * (largest - 1 + SETS_PER_ROUND)  # at most a pass a set
    least = math.ceil(first / (_SCREENING if share < 1 else 1))
    if largest > 1 and passes < least:
        raise InputError(
            f"sensitivity.passes = {passes}: the budget ends before any layers are exchanged;"
            f" raise it to {least} or more"
        )


def blocks(free: Layers, size: int) -> list[Layers]:
    """List the runs of neighbours of one size."""
    runs = [free[i : i + size] for i in range(len(free) - size + 1)]
    return [run for run in runs if run[-1] - run[0] == size - 1]


def starts(free: Layers, largest: int) -> list[Layers]:
    """List the sets that are measured first: none, single layers, blocks of 2, 4, 8, ... layers."""
    sizes = {largest, *(2**n for n in range(largest.bit_length()))}
    return sorted([(), *(block for size in sizes for block in blocks(free, size))])


def sums_of_singles(losses: Mapping[Layers, float], largest: int) -> list[Layers]:
    """List the sets of 2 to `largest` layers of the smallest losses on their own, if not measured.

    They would be the best if effects added up.
    """
    singles = _by_size(losses)[1]
    order = [layer for drop in sorted(singles, key=lambda s: (singles[s], s)) for layer in drop]
    sets = [tuple(sorted(order[:size])) for size in range(2, largest + 1)]
    return [drop for drop in sets if drop not in losses]


def exchanges(drop: Layers, free: Collection[int]) -> Iterable[Layers]:
    """Yield the sets with one layer exchanged for another."""
    for returned in drop:
        rest = [layer for layer in drop if layer != returned]
        for layer in free:
            if layer not in drop:
                yield tuple(sorted([*rest, layer]))


def proposals(losses: Mapping[Layers, float], free: Layers, size: int, count: int) -> list[Layers]:
    """Choose sets of one size to measure next: those of the lowest predicted loss.

    Candidates are blocks, the best sets with one to three layers exchanged, and the best sets of
    the neighbouring sizes with one layer more or less.

    Args:
        losses: by set, of all sizes.
        free: layers that may go.
        size: K.
        count: sets to choose.
    """
    ranked = {
        near: sorted(sets, key=lambda drop: (sets[drop], drop))[:_ORIGINS]
        for near, sets in _by_size(losses).items()
    }
    pool = {*blocks(free, size)}
    for drop in ranked.get(size, []):
        pool.update(exchanges(drop, free))
    for drop in ranked.get(size - 1, []):
        pool.update(tuple(sorted([*drop, layer])) for layer in free if layer not in drop)
    for drop in ranked.get(size + 1, []):
        pool.update(tuple(layer for layer in drop if layer != returned) for returned in drop)
    prediction = Prediction(losses, max(free) + 1)
    order: list[Layers] = []
    for _ in range(_DEPTH + 1):
        new = sorted(pool - {*losses})
        values = dict(zip(new, prediction.of(new).tolist(), strict=True))
        order = sorted(new, key=lambda drop: (values[drop], drop))
        for drop in order[:_BEAM]:
            pool.update(exchanges(drop, free))
    return order[:count]


class Prediction:
    """A prediction of losses by sets, from those measured: a Gaussian process.

    Its covariance adds up effects of single layers, of pairs, and of whole sets that differ by few
    layers. It predicts `log(1 + rise / scale)` of a set's rise over the lowest loss, so that sets
    that break the model weigh no more than others that are no use.
    """

    def __init__(self, losses: Mapping[Layers, float], n_layers: int) -> None:
        self._drops = _indicators(losses, n_layers)  # [N, L]
        rises = np.array([*losses.values()]) - min(losses.values())
        values = np.log1p(rises / max(np.median(rises), 1e-12))
        self._mean = values.mean()
        covariance = _covariance(self._drops, self._drops)
        covariance[np.diag_indices_from(covariance)] += _NOISE
        self._weights = np.linalg.solve(covariance, values - self._mean)

    def of(self, drops: Sequence[Layers]) -> NDArray[np.float64]:
        """Predict sets' values; only their order means something."""
        rows = _indicators(drops, self._drops.shape[1])
        chunks = np.array_split(rows, 1 + len(rows) * len(self._drops) // 10**7)
        values = [_covariance(chunk, self._drops) @ self._weights for chunk in chunks]
        return np.concatenate(values)


def _indicators(drops: Collection[Layers], n_layers: int) -> NDArray[np.float64]:
    """Return 1 where a set has a layer, else 0: [N, L]."""
    indicators = np.zeros((len(drops), n_layers))
    for row, drop in zip(indicators, drops, strict=True):
        row[list(drop)] = 1
    return indicators


def _covariance(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the covariance of the values of sets, [N, L] and [M, L] -> [N, M]."""
    shared = first @ second.T
    differing = first.sum(1)[:, None] + second.sum(1) - 2 * shared
    covariance: NDArray[np.float64] = (
        _SINGLE * shared + _PAIR * shared**2 + _NEAR * np.exp(-differing / _REACH)
    )
    return covariance
