"""Whole periods of layers: what stays repeats its kinds as the dense decoder does."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import made_up

import interlace
from interlace.errors import InputError
from interlace.methods.registry import METHODS
from interlace.model.kinds import LayerKinds
from interlace.params.choosing import Select
from interlace.params.section import validated
from interlace.params.whole import Params
from interlace.plan.record import Plan
from interlace.scores.table import Scores
from interlace.selection.feasible import check_parameters
from interlace.selection.periods import best_runs

WHOLE = sorted(name for name, rule in METHODS.items() if rule.periods and name != "manual")
PART = sorted(name for name, rule in METHODS.items() if rule.removes and not rule.periods)


def sliding(n_layers: int, period: int = 6) -> LayerKinds:
    """Every sixth layer has full attention, the others a window."""
    kinds = ["sliding_attention", "full_attention"]
    types = tuple(kinds[(layer + 1) % period == 0] for layer in range(n_layers))
    return LayerKinds(decoder="gemma3_text", fields={"layer_types": types})


def spans(n_layers: int, rng: np.random.Generator, period: int) -> Scores:
    """Scores of everything that a method may read, of spans as long as a period too."""
    scores = made_up.everything(rng, n_layers)
    long = {
        ("cosine", first, span): float(rng.random())
        for span in range(4, period + 1)
        for first in range(n_layers - span + 1)
    }
    return replace(scores, values={**scores.values, **long}, layer_kinds=sliding(n_layers, period))


def follows(plan: Plan, kinds: LayerKinds) -> bool:
    """The kept layers' kinds are the dense decoder's first ones."""
    by_layer = kinds.by_layer
    return [by_layer[i] for i in plan.keep] == by_layer[: len(plan.keep)]


@pytest.mark.parametrize("method", WHOLE)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_stays_begins_as_the_dense_decoder_does(method: str, data: Any) -> None:
    period = data.draw(st.integers(2, 6))
    n_layers = data.draw(st.integers(2 * period + 2, 40))
    protected = tuple(sorted(data.draw(st.sets(st.integers(0, n_layers - 1), max_size=2))))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    scores = spans(n_layers, rng, period)
    drops = data.draw(st.integers(1, n_layers - 1))
    options = {"protect": protected or "none", "shortfall": "fewer", "period": "keep"}
    if drops < period:
        with pytest.raises(InputError, match="are less than a period"):
            interlace.select(scores, method=method, drops=drops, **options)
        return
    plan = interlace.select(scores, method=method, drops=drops, **options)
    assert plan.period == period
    assert follows(plan, scores.layer_kinds)
    assert len(plan.drop) <= drops and len(plan.drop) % period == 0
    assert not set(plan.drop) & set(protected)
    assert plan.shortfall.missing == drops - drops % period - len(plan.drop)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_runs_with_the_best_sum_are_those_of_a_slow_search(data: Any) -> None:
    length, limit = data.draw(st.integers(2, 4)), data.draw(st.integers(0, 3))
    n_layers = data.draw(st.integers(length, 14))
    starts = data.draw(st.sets(st.integers(0, n_layers - length)))
    values = {first: data.draw(st.integers(-3, 3)) / 2 for first in sorted(starts)}
    by_count = best_runs(values, length, limit)
    for count in range(limit + 2):
        sets = [
            firsts
            for firsts in combinations(sorted(values), count)
            if all(b - a >= length for a, b in pairwise(firsts))
        ]
        if not sets or count > limit:
            assert count not in by_count
            continue
        best = max(sum(values[i] for i in firsts) for firsts in sets)
        first_of = min(f for f in sets if sum(values[i] for i in f) == best)
        assert (float(by_count[count][0]), by_count[count][1]) == (best, first_of)


def test_interlace_drops_the_periods_that_change_their_input_least() -> None:
    scores = spans(26, np.random.default_rng(3), 6)
    plan = interlace.select(scores, method="interlace", ratio=0.5, period="keep", protect="none")
    (first, second) = sorted(group.first for group in plan.groups)
    by_first = scores.of_span(6)
    pairs = [(by_first[a] + by_first[b], (a, b)) for a, b in combinations(by_first, 2) if b - a > 5]
    assert (first, second) == max(pairs)[1]
    assert len(plan.drop) == 12 and plan.shortfall.wanted == 12  # of 13
    assert len(plan.tune) == 12


def test_a_ranking_drops_the_period_with_the_best_sum() -> None:
    scores = spans(16, np.random.default_rng(1), 4)
    plan = interlace.select(scores, method="shortgpt", drops=5, period="keep", protect="none")
    layer = scores.of_span(1)
    sums = {first: sum(1 - layer[first + i] for i in range(4)) for first in range(13)}
    first = min(sums, key=lambda i: sums[i])
    assert plan.drop == [*range(first, first + 4)]
    assert plan.groups[0].score == pytest.approx(sums[first])


@pytest.mark.parametrize("method", PART)
def test_a_method_without_a_score_of_periods_is_refused_by_name(method: str) -> None:
    scores = spans(26, np.random.default_rng(0), 6)
    with pytest.raises(InputError, match=rf"^select\.period = keep: {method} has no score of a wh"):
        interlace.select(scores, method=method, ratio=0.5, period="keep")


def test_layers_named_by_hand_are_checked() -> None:
    scores = replace(spans(14, np.random.default_rng(0), 6), values={("cosine", 0, 1): 0.5})
    options = {"method": "manual", "period": "keep"}
    assert interlace.select(scores, drop=[2, 3, 4, 5, 6, 7], **options).period == 6
    assert interlace.select(scores, drop=[12, 13], **options).drop == [12, 13]
    with pytest.raises(InputError, match=r"^select\.drop = \[2\]: layer 5 would be the first of a"):
        interlace.select(scores, drop=[2], **options)


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        (None, "all its layers are of one kind"),
        (LayerKinds(decoder="lfm2", fields={"layer_types": tuple("abaabb")}), "do not repeat"),
    ],
)
def test_a_decoder_without_a_period_is_refused(kinds: LayerKinds | None, reason: str) -> None:
    scores = replace(spans(6, np.random.default_rng(0), 2), layer_kinds=kinds)
    with pytest.raises(InputError, match=rf"^select\.period = keep: this .* no period: .*{reason}"):
        interlace.select(scores, ratio=0.5, period="keep")


def refusal(**values: Any) -> str:
    values = {"model": {"id": "m"}, "data": {"id": "d"}} | values
    with pytest.raises(InputError) as caught:
        check_parameters(validated(Params, values, "params.yaml"), 26, 0, sliding(26))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"ratio": 0.2},
            "5 of 26 layers are less than a period of 6; the smallest ratio that drop",
        ),
        (
            {"method": "sleb"},
            "select.period = keep: sleb has no score of a whole period of 6 layers",
        ),
        ({"ratio": "auto", "budget": {"params": 0.8}}, "ratio = auto: a budget decides on single"),
        (
            {"collect": {"max_span": 5}},
            "needs spans of 6 layers, and collect.max_span = 5; leave it",
        ),
        ({"ratio": 0.9, "select": {"protect": [5, 11, 17, 23]}}, "may go run out at 0"),
        ({"select": {"rounds": 2}}, "period = keep and rounds = 2: whole periods are chosen once"),
        ({"select": {"candidates": 2}}, "period = keep and candidates = 2: whole periods are chos"),
    ],
)
def test_pin_refuses_what_cannot_be_chosen(values: dict[str, Any], message: str) -> None:
    select = {"period": "keep"} | values.pop("select", {})
    assert message in refusal(**values, select=select)


def test_pin_foresees_the_layers_that_go() -> None:
    values = {"model": {"id": "m"}, "data": {"id": "d"}, "ratio": 0.5, "select": {"period": "keep"}}
    assert check_parameters(Params.model_validate(values), 26, 0, sliding(26)) == 12


def test_any_layer_may_go_unless_periods_are_kept() -> None:
    scores = spans(26, np.random.default_rng(0), 6)
    plan = interlace.select(scores, ratio=0.25)
    assert (plan.period, plan.layer_kinds) == (0, scores.layer_kinds)
    assert Select().period == "any"
