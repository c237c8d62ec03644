"""Layers by chance: the seed decides, and no layer is preferred."""

from __future__ import annotations

from collections import Counter

from methods.made_up import layer_table

from interlace.plan.record import Plan
from interlace.selection.select import select


def by_chance(seed: int, n_layers: int = 8) -> Plan:
    scores = layer_table("cosine", [0.5] * n_layers)
    return select(scores, method="random", ratio=0.25, seed=seed, protect_first=1)


def test_random_choices_depend_on_the_seed() -> None:
    assert len({tuple(by_chance(seed, 36).drop) for seed in range(20)}) == 20


def test_random_drops_fall_evenly_over_the_unprotected_layers_and_tunes_on_all() -> None:
    plans = [by_chance(seed) for seed in range(2000)]
    counts = Counter(i for plan in plans for i in plan.drop)
    assert counts.keys() == set(range(1, 8))
    expected = 2000 * 2 / 7
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())
    assert {i for plan in plans for i in plan.tune} == set(range(8))
