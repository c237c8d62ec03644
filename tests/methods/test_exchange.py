"""The exchange search on made-up losses, against all sets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlace.errors import InputError
from interlace.methods.exchange import (
    SETS_PER_ROUND,
    ExchangeSearch,
    blocks,
    check_passes,
    passes_of,
    proposals,
    starts,
    sums_of_singles,
)
from interlace.model.paths import Layers

FREE = tuple(range(1, 11))
LAYERS, LARGEST = 12, 5


def made_up_loss(seed: int) -> Callable[[Layers], float]:
    """A sum of effects of layers and of pairs, in which pairs count as much as layers."""
    rng = np.random.default_rng(seed)
    single, pair = rng.gamma(1, 0.1, LAYERS), rng.normal(0, 0.05, (LAYERS, LAYERS))

    def loss(drop: Layers) -> float:
        pairs = itertools.combinations(drop, 2)
        return float(2 + sum(single[i] for i in drop) + sum(pair[i, j] for i, j in pairs))

    return loss


def search_of(
    loss: Callable[[Layers], float],
    passes: float = 60,
    share: float = 0.25,
    noise: Callable[[Layers], float] = lambda drop: 0,
    free: Layers = FREE,
) -> tuple[ExchangeSearch, dict[int, tuple[Layers, float]]]:
    """A finished search; the screened rows have a loss of their own."""

    def measure(drops: Sequence[Layers], screened: bool) -> list[float]:
        return [loss(drop) + screened * noise(drop) for drop in drops]

    search = ExchangeSearch(LAYERS, free, LARGEST, passes, share, measure)
    return search, search.run()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_best_set_of_each_size_is_found_among_few_that_are_measured(
    seed: int, share: float
) -> None:
    loss = made_up_loss(seed)
    search, bests = search_of(loss, share=share, passes=60 if share < 1 else 150)
    for size in range(1, LARGEST + 1):
        best = min(itertools.combinations(FREE, size), key=loss)
        assert bests[size] == (best, pytest.approx(loss(best)))
    assert len({trial.drop for trial in search.trials}) < 250  # of 637


def test_single_layers_added_up_miss_what_is_found() -> None:
    loss = made_up_loss(0)
    _, bests = search_of(loss)
    singles = sorted(FREE, key=lambda layer: loss((layer,)))[:LARGEST]
    assert loss(bests[LARGEST][0]) < loss(tuple(sorted(singles))) - 0.05


@settings(max_examples=30)
@given(seed=st.integers(0, 99), passes=st.integers(16, 60), largest=st.integers(2, LARGEST))
def test_the_budget_holds_and_no_set_is_measured_twice(
    seed: int, passes: int, largest: int
) -> None:
    loss = made_up_loss(seed)
    check_passes(passes, LAYERS, FREE, largest, 0.25)
    search = ExchangeSearch(
        LAYERS, FREE, largest, passes, 0.25, lambda drops, _: [*map(loss, drops)]
    )
    bests = search.run()
    assert search.spent <= passes
    keys = [(trial.drop, trial.screened) for trial in search.trials]
    assert len(keys) == len(set(keys))
    assert search.spent > passes_of(LAYERS, starts(FREE, largest), 0.25)
    screened, confirmed = search.losses(True), search.losses(False)
    assert confirmed.keys() <= screened.keys()
    for size, (drop, lowest) in bests.items():
        assert len(drop) == size and set(drop) <= set(FREE)
        assert lowest == min(v for drop, v in confirmed.items() if len(drop) == size)
        first = min((s for s in screened if len(s) == size), key=lambda s: (screened[s], s))
        assert first in confirmed


def test_the_loss_on_all_rows_decides_among_the_best_on_the_screened() -> None:
    loss = made_up_loss(1)
    draw = np.random.default_rng(0).normal(0, 0.03, 2**LAYERS)
    search, bests = search_of(loss, noise=lambda drop: float(draw[sum(1 << i for i in drop)]))
    changed = 0
    for size, (drop, _) in bests.items():
        screened = {s: v for s, v in search.losses(True).items() if len(s) == size}
        changed += drop != min(screened, key=screened.__getitem__)
    assert changed


def test_a_trial_says_what_was_exchanged_and_whether_it_was_the_best_so_far() -> None:
    search, _ = search_of(made_up_loss(2))
    best: dict[tuple[int, bool], float] = {}
    for _, round_trials in itertools.groupby(search.trials, key=lambda trial: trial.round):
        trials = list(round_trials)
        for trial in trials:
            key = len(trial.drop), trial.screened
            assert (trial.exchanged is None) == (key not in best)
            lowest = min(t.loss for t in trials if len(t.drop) == key[0])
            better = trial.loss == lowest < best.get(key, np.inf)
            assert trial.accepted == better
        for trial in trials:
            key = len(trial.drop), trial.screened
            best[key] = min(best.get(key, np.inf), trial.loss)


def test_single_layers_and_blocks_are_measured_first() -> None:
    free = (1, 2, 3, 4, 6, 7)
    assert starts(free, 3) == [
        *[(), (1,), (1, 2), (1, 2, 3), (2,), (2, 3), (2, 3, 4), (3,), (3, 4)],
        *[(4,), (6,), (6, 7), (7,)],
    ]
    assert blocks(free, 4) == [(1, 2, 3, 4)]


def test_the_layers_that_do_least_harm_singly_are_measured_too() -> None:
    losses = {(1,): 0.3, (2,): 0.1, (3,): 0.2, (4,): 0.4, (2, 3): 0.5, (): 0.0}
    assert sums_of_singles(losses, 4) == [(1, 2, 3), (1, 2, 3, 4)]


def test_proposals_are_new_and_of_the_size_asked_for() -> None:
    loss = made_up_loss(3)
    losses = {drop: loss(drop) for drop in starts(FREE, 4)}
    for size in range(2, 6):
        drops = proposals(losses, FREE, size, SETS_PER_ROUND)
        assert len(set(drops)) == SETS_PER_ROUND
        assert all(len(drop) == size and set(drop) <= set(FREE) for drop in drops)
        assert not losses.keys() & set(drops)
    assert proposals(losses, FREE, 1, SETS_PER_ROUND) == []


def test_a_budget_that_allows_no_exchange_is_refused_with_the_least_that_does() -> None:
    free = tuple(range(1, 29))
    with pytest.raises(InputError, match=r"^sensitivity\.passes = 9: .* raise it to 24 or more$"):
        check_passes(9, 30, free, 12, 0.25)
    check_passes(24, 30, free, 12, 0.25)
    check_passes(1, 30, (4, 5), 1, 0.25)  # one layer is chosen among all, without exchanges
