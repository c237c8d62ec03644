"""All methods against their slow versions, on thousands of made-up tables."""

from __future__ import annotations

import numpy as np
import pytest
from methods import made_up
from methods.slow_answers import ANSWERS

from interlace.errors import InputError
from interlace.methods.choice import Request
from interlace.methods.registry import METHODS
from interlace.params.choosing import Select
from interlace.params.measuring import Mode

CASES = 500
# by chance, by hand, and weights instead of layers: there is nothing to recompute
OWN_TESTS = {"random", "manual", "wanda-2:4", "magnitude-2:4"}


def test_every_method_has_a_slow_version_or_tests_of_its_own() -> None:
    assert METHODS.keys() == ANSWERS.keys() | OWN_TESTS


@pytest.mark.parametrize("mode", ["residual", "reference"])
@pytest.mark.parametrize("method", ANSWERS)
def test_thousands_of_tables_agree_with_the_slow_version(method: str, mode: Mode) -> None:
    rng = np.random.default_rng(0)
    outcomes = set()
    longest = 12 if method == "interlace-optimal" else 100
    for case in range(CASES):
        question = made_up.question(method, rng, case, longest, mode)
        expected = ANSWERS[method](question.scores, question.request)
        if expected.refused_at is not None:
            complaint = rf"feasible K is {expected.refused_at}\b"
            with pytest.raises(InputError, match=complaint) as caught:
                question.plan()
            assert "\n" not in str(caught.value)
            outcomes.add("refused")
            continue
        plan = question.plan()
        order = [layer for group in plan.groups for layer in group.drop]
        assert (sorted(order) if method == "interlace-optimal" else order) == expected.drop
        assert (plan.drop, plan.tune) == (sorted(expected.drop), sorted(expected.tune))
        outcomes.add("fewer" if plan.shortfall.missing else "all")
    assert outcomes == ({"all"} if method == "dense-ft" else {"all", "fewer", "refused"})


@pytest.mark.parametrize("method", sorted(ANSWERS.keys() - {"dense-ft"}))
def test_layers_free_here_and_there_agree_with_the_slow_version(method: str) -> None:
    """As in later rounds, where layers that are tuned already stand between free ones."""
    rng = np.random.default_rng(1)
    for case in range(CASES // 2):
        n_layers = int(rng.integers(3, 13))
        free = [i for i in range(n_layers) if rng.random() < 0.75] or [n_layers - 1]
        tuned = frozenset(i for i in range(n_layers) if i not in free and rng.random() < 0.5)
        mode: Mode = "reference" if case % 2 and n_layers > 3 else "residual"
        scores = made_up.table_for(method, rng, n_layers, 1 + case % 3, removable=free, mode=mode)
        drops = int(rng.integers(1, len(free) + 1))
        for policy in made_up.POLICIES:
            options = Select(shortfall=policy)
            request = Request(drops, frozenset(free), options, tuned_before=tuned)
            expected = ANSWERS[method](scores, request)
            if expected.refused_at is not None:
                with pytest.raises(
                    InputError, match=rf"largest feasible K is {expected.refused_at}\b"
                ):
                    METHODS[method].choose(scores, request)
                continue
            choice = METHODS[method].choose(scores, request)
            assert (choice.drop, choice.tune) == (set(expected.drop), expected.tune)
