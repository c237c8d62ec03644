"""Choosing in rounds is choosing again on the model that the rounds before leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from methods import made_up
from methods.slow_answers import ANSWERS, Asked

from interlace.errors import InputError
from interlace.methods.choice import Choice
from interlace.methods.registry import METHODS
from interlace.plan.record import Plan
from interlace.scores.table import Scores, read_scores
from interlace.selection.select import select

MEASURED_AGAIN = sorted(
    name for name, rule in METHODS.items() if rule.needs and not {"sleb", "taylor"} & {*rule.needs}
)
OF_ANY_LAYERS = sorted({*MEASURED_AGAIN} - {"consecutive"})  # its papers' run knows no gaps


def measure(method: str, seed: int, n_layers: int) -> Callable[[list[int]], Scores]:
    """Stands for `collect` on a pruned model: a table made up from what is gone."""

    def measured(gone: list[int]) -> Scores:
        kept = tuple(i for i in range(n_layers) if i not in gone)
        rng = np.random.default_rng([seed, *gone])
        return made_up.table_for(method, rng, len(kept), decimals=9, kept=kept)

    return measured


def after(method: str, seed: int, n_layers: int) -> Callable[[Choice], Scores]:
    """The same, asked by a choice in rounds."""
    return lambda made: measure(method, seed, n_layers)(sorted(made.drop))


def dense(method: str, seed: int, n_layers: int) -> Scores:
    return replace(measure(method, seed, n_layers)([]), kept=())


def in_rounds(method: str, seed: int, n_layers: int, rounds: int, **asked: Any) -> Plan:
    return select(
        dense(method, seed, n_layers),
        method=method,
        rounds=rounds,
        later=after(method, seed, n_layers),
        protect_first=1,
        protect_last=1,
        **asked,
    )


def replay(method: str, seed: int, n_layers: int, rounds: int, drops: int) -> tuple[Any, Any]:
    """Round after round: what is gone is gone, what is tuned is left alone, the rest is free."""
    gone: set[int] = set()
    tuned: set[int] = set()
    for number in range(rounds):
        share = drops * (number + 1) // rounds - len(gone)
        kept = [i for i in range(n_layers) if i not in gone]
        places = {layer: place for place, layer in enumerate(kept)}
        free = [places[i] for i in kept if i not in tuned and 1 <= i < n_layers - 1]
        answer = ANSWERS[method](
            measure(method, seed, n_layers)(sorted(gone)),
            Asked(share, free, "pairs", tuned=frozenset(places[i] for i in tuned)),
        )
        if answer.refused_at is not None:
            return None, answer.refused_at
        gone |= {kept[i] for i in answer.drop}
        tuned |= {kept[i] for i in answer.tune}
    return sorted(gone), sorted(tuned)


@pytest.mark.parametrize("method", OF_ANY_LAYERS)
def test_a_replay_by_hand_agrees(method: str) -> None:
    rng = np.random.default_rng(0)
    agreed = 0
    longest = 12 if method == "interlace-optimal" else 40
    for seed in range(150):
        n_layers = int(rng.integers(6, longest + 1))
        drops = int(rng.integers(2, max(3, n_layers // 4 + 1)))
        rounds = int(rng.integers(1, drops + 1))
        gone, tuned = replay(method, seed, n_layers, rounds, drops)
        if gone is None:
            with pytest.raises(InputError, match=rf"\b{tuned}\b"):
                in_rounds(method, seed, n_layers, rounds, drops=drops)
            continue
        plan = in_rounds(method, seed, n_layers, rounds, drops=drops)
        assert (plan.drop, plan.tune, plan.rounds) == (gone, tuned, rounds)
        agreed += 1
    assert agreed > 75


@pytest.mark.parametrize("method", MEASURED_AGAIN)
def test_every_layer_has_one_role_over_all_rounds(method: str) -> None:
    for seed in range(40):
        plan = in_rounds(method, seed, 36, 3, ratio=0.2, shortfall="fewer", base="all")
        assert sorted(plan.drop + plan.tune + plan.freeze) == list(range(36))
        assert not {0, 35} & set(plan.drop)
        assert (plan.shortfall.wanted, plan.shortfall.missing) == (7, 0)
        assert len(plan.tune) == 7


@pytest.mark.parametrize("method", MEASURED_AGAIN)
def test_a_layer_that_a_round_tunes_is_not_grouped_again(method: str) -> None:
    for seed in range(40):
        plan = in_rounds(method, seed, 36, 3, ratio=0.2, shortfall="fewer", base="all")
        tuned: set[int] = set()
        for number in (1, 2, 3):
            groups = [group for group in plan.groups if group.round == number]
            assert not tuned & {i for group in groups for i in group.layers}
            tuned |= {i for group in groups for i in group.tune}


@pytest.mark.parametrize("method", MEASURED_AGAIN)
def test_one_round_is_no_rounds(method: str) -> None:
    asked: Any = {"method": method, "ratio": 0.2, "shortfall": "fewer"}
    for seed in range(10):
        scores = dense(method, seed, 28)
        once = select(scores, rounds=1, later=after(method, seed, 28), **asked)
        assert once == select(scores, **asked)


def test_groups_say_which_round_made_them() -> None:
    plan = in_rounds("interlace", 0, 36, 4, ratio=0.2)
    assert [group.round for group in plan.groups] == [1, 2, 2, 3, 3, 4, 4]  # 7 in 4 rounds


def test_neighbours_are_those_of_the_pruned_decoder() -> None:
    first = {("cosine", i, 1): 0.9 if i == 3 else 0.1 * (i == 4) for i in range(8)}
    kept = (0, 1, 2, 4, 5, 6, 7)  # layer 3 is gone, so 4 stands at place 3
    second = {("cosine", i, 1): 0.9 if i == 2 else 0.1 for i in range(7)}
    plan = select(
        Scores(8, 0, first, {}),
        method="shortgpt",
        drops=2,
        rounds=2,
        later=[Scores(7, 0, second, {}, kept)],
    )
    assert plan.drop == [2, 3]
    assert plan.tune == [4, 5]  # 4 is tuned for 3, so the nearest layer behind 2 is 5


def test_anchors_are_free_again() -> None:
    first = dict(dense("interlace", 0, 9).values)
    first |= {("cosine", i, 3): float(i == 3) for i in range(7)} | {("cosine", 3, 1): 1.0}
    second = dict(made_up.table_for("interlace", np.random.default_rng(0), 8).values)
    kept = (0, 1, 2, 4, 5, 6, 7, 8)
    second |= {("cosine", i, 3): float(i == 4) for i in range(6)}  # layers 5, 6 and 7
    plan = select(
        Scores(9, 0, first, {}), drops=2, rounds=2, later=[Scores(8, 0, second, {}, kept)]
    )
    assert plan.groups[0].anchor == 5
    assert (plan.groups[1].layers, plan.groups[1].anchor) == ((5, 6, 7), 7)


def test_tables_are_read_from_files_with_the_layers_that_are_kept() -> None:
    seed, n_layers = 3, 12
    first = measure("interlace", seed, n_layers)([])
    gone = select(replace(first, kept=()), drops=1).drop
    second = measure("interlace", seed, n_layers)(gone)
    assert read_scores(made_up.arrow_table(second)).kept == second.kept
    tables = [made_up.arrow_table(table) for table in (replace(first, kept=()), second)]
    plan = select(tables[0], drops=2, rounds=2, later=tables[1:])
    assert plan == select(
        replace(first, kept=()), drops=2, rounds=2, later=after("interlace", seed, n_layers)
    )


def refused(complaint: str, **asked: Any) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        select(dense("interlace", 0, 12), **asked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gone", [[], [0], [0, 1], [0, 1, 2]])
def test_a_table_of_another_model_is_refused(gone: list[int]) -> None:
    table = measure("interlace", 0, 12)(gone)
    if gone == select(dense("interlace", 0, 12), drops=1).drop:
        pytest.fail("the case is to be of another model")
    refused(
        "round 2 was measured on a model without other layers", drops=2, rounds=2, later=[table]
    )


def test_a_table_of_the_dense_model_is_refused_in_a_later_round() -> None:
    table = dense("interlace", 0, 12)
    refused(
        "round 2 was measured on a model without other layers", drops=2, rounds=2, later=[table]
    )


@pytest.mark.parametrize("measured", [0, 2])
def test_as_many_tables_as_rounds_are_needed(measured: int) -> None:
    later = [measure("interlace", 0, 12)([3])] * measured
    refused(
        f"select.rounds = 2: {measured + 1} were measured; run `dvc repro rounds`",
        drops=2,
        rounds=2,
        later=later,
    )


def test_more_rounds_than_drops_are_refused() -> None:
    refused("select.rounds = 3: only 2 layers are to go; lower it", drops=2, rounds=3)


def test_a_table_of_a_model_with_fewer_layers_is_refused() -> None:
    first = select(dense("interlace", 0, 12), drops=1).drop
    shallow = measure("interlace", 0, 11)(first)
    refused(
        "round 2 was measured on a model without other layers", drops=2, rounds=2, later=[shallow]
    )
