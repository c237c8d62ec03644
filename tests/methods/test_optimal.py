"""The best set of groups never falls short of what fits, in decoders of any depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from methods import made_up

from interlace.plan.record import Plan
from interlace.selection.select import select


def best(n_layers: int, drops: int, **options: Any) -> Plan:
    scores = made_up.table_for("interlace-optimal", np.random.default_rng(n_layers), n_layers)
    return select(scores, method="interlace-optimal", drops=drops, **options)


@pytest.mark.parametrize("policy", made_up.POLICIES)
@pytest.mark.parametrize(("first", "last"), [(0, 0), (1, 1), (3, 0)])
def test_it_never_falls_short_while_three_times_k_layers_are_free(
    policy: Any, first: int, last: int
) -> None:
    for n_layers in (6, 13, 28, 36, 64, 100):
        drops = (n_layers - first - last) // 3
        options = {"shortfall": policy, "protect_first": first, "protect_last": last}
        shortfall = best(n_layers, drops, **options).shortfall
        assert (shortfall.triplets, shortfall.pairs, shortfall.missing) == (drops, 0, 0)


@pytest.mark.parametrize("n_layers", [7, 12, 26, 36])
def test_beyond_that_as_many_triplets_stay_as_leave_room_for_pairs(n_layers: int) -> None:
    for drops in range(n_layers // 3 + 1, n_layers // 2 + 1):
        pairs = best(n_layers, drops).shortfall
        assert (pairs.triplets, pairs.pairs) == (n_layers - 2 * drops, 3 * drops - n_layers)
        order = [(-group.span, -(group.score or 0)) for group in best(n_layers, drops).groups]
        assert order == sorted(order)
        fewer = best(n_layers, drops, shortfall="fewer").shortfall
        assert (fewer.triplets, fewer.pairs) == (n_layers // 3, 0)
