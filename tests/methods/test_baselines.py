"""The ablations: a run of layers, and layers by chance."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from methods import slow_version

from interlace.errors import InputError
from interlace.plan.record import Plan
from interlace.scores.table import Scores
from interlace.selection.select import select


def layer_scores(values: list[float]) -> Scores:
    return Scores(len(values), 0, {("cosine", i, 1): v for i, v in enumerate(values)}, {})


def test_a_run_agrees_with_the_slow_version_on_thousands_of_tables() -> None:
    rng = np.random.default_rng(0)
    for case in range(2000):
        n_layers = int(rng.integers(3, 101))
        ratio = f"0.{int(rng.integers(1, 90)):02d}"
        drops = slow_version.floor_of_share(ratio, n_layers)
        first = int(rng.integers(0, min(4, n_layers)))
        last = int(rng.integers(0, min(3, n_layers - first)))
        if not 1 <= drops <= n_layers - first - last:
            continue
        scores = slow_version.random_scores(rng, n_layers, decimals=1 + case % 3)
        plan = select(
            scores,
            method="consecutive",
            ratio=float(ratio),
            protect_first=first,
            protect_last=last,
        )
        assert (plan.drop, plan.tune) == slow_version.consecutive(scores, drops, first, last)


def test_the_run_starts_at_the_most_redundant_layer_and_the_next_are_tuned() -> None:
    plan = select(layer_scores([0.1, 0.9, *[0.5] * 6]), method="consecutive", ratio=0.25)
    assert (plan.drop, plan.tune) == ([1, 2], [3, 4])


def test_a_run_that_would_leave_the_decoder_is_shifted_down() -> None:
    plan = select(layer_scores([0.5] * 7 + [0.9]), method="consecutive", ratio=0.25)
    assert plan.drop == [6, 7]


def test_a_run_that_would_reach_protected_layers_is_shifted_down() -> None:
    scores = layer_scores([0.5] * 6 + [0.9, 0.95])
    plan = select(scores, method="consecutive", ratio=0.25, protect_last=1)
    assert plan.drop == [5, 6]


@pytest.mark.parametrize("method", ["consecutive", "random"])
def test_more_drops_than_unprotected_layers_are_refused(method: str) -> None:
    with pytest.raises(InputError, match="4 layers cannot be dropped: only 3 are not protected"):
        select(layer_scores([0.5] * 8), method=method, ratio=0.5, protect_first=5)


def by_chance(ratio: float, seed: int, n_layers: int = 36, **protect: int) -> Plan:
    return select(
        layer_scores([0.5] * n_layers), method="random", ratio=ratio, seed=seed, **protect
    )


@pytest.mark.parametrize("seed", range(10))
def test_a_smaller_random_choice_is_part_of_a_larger_one(seed: int) -> None:
    chosen = [set(by_chance(ratio, seed).drop) for ratio in (0.1, 0.15, 0.2, 0.25)]
    assert all(small < large for small, large in pairwise(chosen))


def test_random_choices_depend_on_the_seed() -> None:
    assert len({tuple(by_chance(0.25, seed).drop) for seed in range(20)}) == 20


def test_a_seed_gives_the_same_choice_again() -> None:
    assert by_chance(0.25, 7) == by_chance(0.25, 7)


def test_random_drops_fall_evenly_over_the_unprotected_layers() -> None:
    plans = [by_chance(0.25, seed, n_layers=8, protect_first=1) for seed in range(2000)]
    counts = Counter(i for plan in plans for i in plan.drop)
    assert counts.keys() == set(range(1, 8))
    expected = 2000 * 2 / 7
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_random_tunes_fall_on_every_survivor() -> None:
    plans = [by_chance(0.25, seed, n_layers=8, protect_first=1) for seed in range(200)]
    assert {i for plan in plans for i in plan.tune} == set(range(8))
