"""Choosing in rounds is choosing again on the model that the rounds before leave."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from methods import made_up
from methods.slow_answers import ANSWERS

from interlace.errors import InputError
from interlace.methods.choice import Choice, Request
from interlace.methods.registry import METHODS
from interlace.params.choosing import Select
from interlace.plan.record import Plan
from interlace.scores.table import Scores
from interlace.selection.rounds import choose_in_rounds
from interlace.selection.select import select

MEASURED_AGAIN = sorted(
    name
    for name, rule in METHODS.items()
    if rule.needs and not {"sleb", "search", "taylor"} & {*rule.needs}
)


class Model:
    """Stands for `collect` on a pruned model: tables made up from the layers that are gone."""

    def __init__(self, method: str, seed: int, n_layers: int) -> None:
        self.method, self.seed, self.n_layers = method, seed, n_layers
        self.dense = replace(self.without([]), kept_layers=())

    def without(self, dropped: list[int]) -> Scores:
        kept = tuple(i for i in range(self.n_layers) if i not in dropped)
        rng = np.random.default_rng([self.seed, *dropped])
        return made_up.table_for(self.method, rng, len(kept), decimals=9, kept=kept)

    def measure(self, choice: Choice) -> Scores:
        return self.without(sorted(choice.drop))

    def plan(self, rounds: int, **options: Any) -> Plan:
        options = {"protect_first": 1, "protect_last": 1} | options
        later = self.measure
        return select(self.dense, method=self.method, rounds=rounds, later=later, **options)


def replay(model: Model, rounds: int, drops: int) -> tuple[Any, Any]:
    """Round after round: what is gone is gone, what is tuned is left alone, the rest is free."""
    gone: set[int] = set()
    tuned: set[int] = set()
    for number in range(rounds):
        share = drops * (number + 1) // rounds - len(gone)
        kept = [i for i in range(model.n_layers) if i not in gone]
        position = {layer: index for index, layer in enumerate(kept)}
        free = {position[i] for i in kept if i not in tuned and 1 <= i < model.n_layers - 1}
        tuned_before = frozenset(position[i] for i in tuned)
        request = Request(share, frozenset(free), Select(), tuned_before=tuned_before)
        answer = ANSWERS[model.method](model.without(sorted(gone)), request)
        if answer.refused_at is not None:
            return None, answer.refused_at
        gone |= {kept[i] for i in answer.drop}
        tuned |= {kept[i] for i in answer.tune}
    return sorted(gone), sorted(tuned)


@pytest.mark.parametrize("method", MEASURED_AGAIN)
def test_a_replay_by_hand_agrees(method: str) -> None:
    rng = np.random.default_rng(0)
    agreed = 0
    longest = 12 if method == "interlace-optimal" else 40
    for seed in range(150):
        n_layers = int(rng.integers(6, longest + 1))
        drops = int(rng.integers(2, max(3, n_layers // 4 + 1)))
        rounds = int(rng.integers(1, drops + 1))
        model = Model(method, seed, n_layers)
        gone, tuned = replay(model, rounds, drops)
        if gone is None:
            with pytest.raises(InputError, match=rf"\b{tuned}\b"):
                model.plan(rounds, drops=drops)
            continue
        plan = model.plan(rounds, drops=drops)
        assert (plan.drop, plan.tune, plan.rounds) == (gone, tuned, rounds)
        for group in plan.groups:
            assert {*group.drop} <= {*group.layers} and group.anchor in (None, group.layers[-1])
            assert group.kind in ("layer", "run") or {*group.layers[:2]} == {
                *group.drop,
                *group.tune,
            }
        agreed += 1
    assert agreed > 75


def test_groups_say_which_round_made_them() -> None:
    plan = Model("interlace", 0, 36).plan(4, ratio=0.2)
    assert [group.round for group in plan.groups] == [1, 2, 2, 3, 3, 4, 4]  # 7 in 4 rounds


def test_a_later_round_names_itself_and_its_longest_run_between_tuned_layers() -> None:
    dense = made_up.table("cosine", [0.1, 0.2, 0.3, 0.9, 0.8, 0.3, 0.2, 0.1, 0.1])
    kept = (0, 1, 2, 6, 7, 8)  # 3 to 5 go, 6 to 8 are tuned; 0 to 2 are free
    second = replace(made_up.table("cosine", [0.5] * 6), kept_layers=kept)
    options: Any = {"method": "consecutive", "rounds": 2, "later": [second]}
    with pytest.raises(InputError, match=r"round 2 of 2: 4 .* has 3 \(the largest .* K is 3\)"):
        select(dense, drops=7, **options)


def test_tn_tunes_the_last_layer_in_a_later_round_of_reference_scores() -> None:
    first = Scores(6, 0, {("cosine", i, 1): v for i, v in enumerate([0.1, 0.9, 0, 0, 0])}, {})
    kept = (0, 2, 3, 4, 5)  # 1 goes, 2 is tuned
    later = {("cosine", i, 1): value for i, value in enumerate([0.5, 0.9, 0.1, 0.2])}
    second = Scores(5, 0, later, {}, kept)
    plan = select(first, method="interlace-tn", drops=2, rounds=2, later=[second])
    assert (plan.drop, plan.tune) == ([1, 4], [2, 5])


def test_random_tunes_no_layer_twice() -> None:
    for seed in range(20):
        request = Request(6, frozenset(range(12)), Select(rounds=3), seed)
        model = Model("random", 0, 12)
        choice = choose_in_rounds(METHODS["random"], request, model.dense, model.measure)
        assert len(choice.drop) == len(choice.tune) == 6 and not choice.drop & choice.tune


def test_tables_hold_the_layers_that_are_kept() -> None:
    model = Model("interlace", 3, 12)
    second = model.without(model.plan(1, drops=1).drop)
    tables = [made_up.arrow_table(table) for table in (model.dense, second)]
    plan = select(tables[0], drops=2, rounds=2, later=tables[1:], protect_first=1, protect_last=1)
    assert plan == model.plan(2, drops=2)


MODEL = Model("interlace", 0, 12)


@pytest.mark.parametrize(
    "table",
    [
        MODEL.dense,
        *(MODEL.without(dropped) for dropped in ([], [0], [0, 1], [0, 1, 2])),
        Model("interlace", 0, 11).without(select(MODEL.dense, drops=1).drop),
    ],
)
def test_a_table_of_another_model_is_refused(table: Scores) -> None:
    assert select(MODEL.dense, drops=1).drop != [0]
    with pytest.raises(InputError, match=r"round 2 was measured on"):
        select(MODEL.dense, drops=2, rounds=2, later=[table])


@pytest.mark.parametrize(
    ("tables", "rounds", "complaint"),
    [
        (0, 2, r"rounds = 2: 1 "),
        (2, 2, r"rounds = 2: 3 "),
        (0, 3, r"rounds = 3: only 2 layers"),
    ],
)
def test_a_table_for_each_round_and_a_layer_at_least_in_each_are_needed(
    tables: int, rounds: int, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        select(MODEL.dense, drops=2, rounds=rounds, later=[MODEL.without([3])] * tables)
