"""What cannot be done is refused before anything is measured, in one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from methods import made_up

from interlace.errors import InputError
from interlace.methods.registry import METHODS
from interlace.params.whole import Params
from interlace.selection.feasible import check_asked, check_feasible, check_measured
from interlace.selection.select import select

GREEDY = {"interlace", "interlace-oa", "interlace-tn", "interlace-pooled"}  # gaps depend on scores
EXACT = sorted(METHODS.keys() - GREEDY - {"manual"})
PROBES = {"per_task": 100}
READY: dict[str, dict[str, Any]] = {"probes": PROBES}  # what every method needs


def params(**values: Any) -> Params:
    return Params.model_validate({"model": {"id": "m"}, "data": {"id": "d"}} | values)


def refusal(n_layers: int = 28, deepstack_layers: int = 0, **values: Any) -> str:
    with pytest.raises(InputError) as caught:
        check_asked(params(**values), n_layers, deepstack_layers)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("method", EXACT)
def test_what_is_accepted_or_refused_beforehand_is_so_with_any_scores(method: str) -> None:
    rng = np.random.default_rng(0)
    met = set()
    for case in range(150):
        asked = made_up.question(method, rng, case, longest=40)
        try:
            foreseen = check_feasible(asked.scores.n_layers, 0, method=method, **asked.asked())
        except InputError as error:
            with pytest.raises(InputError) as caught:
                select(asked.scores, method=method, **asked.asked())
            assert str(caught.value) == str(error)
            met.add("refused")
            continue
        plan = select(asked.scores, method=method, **asked.asked())
        assert len(plan.drop) == len(foreseen.drop)
        met.add("accepted")
    assert met == ({"accepted", "refused"} if METHODS[method].removes else {"accepted"})


@pytest.mark.parametrize("method", sorted(GREEDY))
@pytest.mark.parametrize("policy", ["fewer", "error"])
def test_greedy_choices_never_drop_more_than_was_foreseen(method: str, policy: Any) -> None:
    rng = np.random.default_rng(1)
    for case in range(150):
        asked = made_up.question(method, rng, case, longest=40)
        plan = select(asked.scores, method=method, **asked.asked() | {"shortfall": "fewer"})
        wanted = asked.asked() | {"shortfall": policy}
        try:
            foreseen = check_feasible(asked.scores.n_layers, 0, method=method, **wanted)
        except InputError:
            assert plan.shortfall.missing  # nor can the real choice be made in full
            continue
        assert len(plan.drop) <= len(foreseen.drop)


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"manual"}))
@pytest.mark.parametrize("n_layers", [28, 36])
def test_published_ratios_are_accepted(method: str, n_layers: int) -> None:
    for ratio in (0.10, 0.15, 0.20, 0.25):
        drops = check_asked(params(method=method, ratio=ratio, **READY), n_layers, 0)
        rule = METHODS[method]
        of = n_layers if rule.base == "all" else n_layers - 2
        assert drops == (int(ratio * of + 1e-9) if rule.removes else 0)


def test_protection_of_deepstack_layers_counts() -> None:
    assert check_asked(params(ratio=0.3), 30, 3) == 9
    assert "the largest feasible K is 4" in refusal(30, 19, ratio=0.3)


@pytest.mark.parametrize(
    ("method", "largest"),
    [("interlace", 9), ("interlace-optimal", 9), ("interlace-tn", 14), ("consecutive", 26)],
)
def test_more_drops_than_can_be_are_refused_with_the_largest_k(method: str, largest: int) -> None:
    values: dict[str, Any] = {"method": method, "select": {"shortfall": "error"}}
    if method == "consecutive":
        values["select"] |= {"protect_last": 2}
    assert f"the largest feasible K is {largest}" in refusal(28, ratio=1 - 1e-9, **values)
    assert check_asked(params(ratio=(largest + 0.5) / 28, **values), 28, 0) == largest


def test_fewer_is_answered_with_what_can_go() -> None:
    values: dict[str, Any] = {"ratio": 0.5, "select": {"shortfall": "fewer"}}
    assert check_asked(params(**values), 28, 0) == 9


def test_a_ratio_that_drops_no_layer_is_refused() -> None:
    assert refusal(ratio=0.01).startswith("ratio = 0.01: drops none of 28 layers")


@pytest.mark.parametrize("method", ["wanda-2:4", "magnitude-2:4"])
def test_sparse_methods_take_any_ratio(method: str) -> None:
    assert check_asked(params(method=method, ratio=0.001), 28, 3) == 0


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    assert "did you mean interlace-optimal" in refusal(method="interlace-optimum")


def test_a_choice_by_hand_is_held_against_the_model() -> None:
    by_hand: dict[str, Any] = {"method": "manual", "select": {"drop": [4, 9], "tune": [5]}}
    assert check_asked(params(**by_hand), 28, 3) == 2
    assert "layer 9 is not one of the layers 0 to 7" in refusal(8, **by_hand)
    assert "layer 4 is protected" in refusal(28, 5, **by_hand)


@pytest.mark.parametrize("method", ["manual", "dense-ft", "wanda-2:4", "magnitude-2:4"])
def test_a_budget_has_nothing_to_decide_for_some(method: str) -> None:
    said = refusal(method=method, ratio="auto", budget={"params": 0.8}, select={"drop": [3]})
    assert said == f"ratio = auto: {method} has nothing to decide; give a ratio"


@pytest.mark.parametrize(
    ("budget", "complaint"),
    [
        ({}, "none is set"),
        ({"params": 0.8, "retention": 90}, "budget.params = 0.8, budget.retention = 90.0"),
    ],
)
def test_a_budget_is_one_target(budget: dict[str, float], complaint: str) -> None:
    assert complaint in refusal(ratio="auto", budget=budget)


def test_how_many_go_by_budget_is_not_known_yet() -> None:
    assert check_asked(params(ratio="auto", budget={"retention": 90}), 28, 0) is None


@pytest.mark.parametrize("method", ["math-aware", "nonmath-aware", "mixed", "cka"])
def test_methods_on_probes_need_some(method: str) -> None:
    said = refusal(method=method, probes={"per_task": 0})
    assert said == (
        f"method = {method} is measured on probes, and probes.per_task = 0; set it, e.g. to 100"
    )


@pytest.mark.parametrize("method", ["cka", "interlace-pooled"])
def test_methods_on_pooled_states_need_them_kept(method: str) -> None:
    said = refusal(method=method, probes=PROBES, collect={"pooled": "none"})
    assert said == f"method = {method} needs collect.pooled = probes (or all), not none"
    for pooled in ("probes", "all"):
        check_asked(params(method=method, probes=PROBES, collect={"pooled": pooled}), 28, 0)


def test_the_block_by_angle_needs_spans_of_k_layers() -> None:
    said = refusal(method="angular-block", collect={"max_span": 6})
    assert "needs spans of 7 layers, and collect.max_span = 6; leave it empty" in said
    check_asked(params(method="angular-block", collect={"max_span": 7}), 28, 0)
    check_asked(params(method="angular-block"), 28, 0)


def test_sleb_needs_as_many_removals_as_drops() -> None:
    said = refusal(method="sleb", sensitivity={"max_ratio": 0.22})
    assert "is to drop 7 layers, and sensitivity.max_ratio = 0.22 removes 6; raise it" in said
    check_asked(params(method="sleb", sensitivity={"max_ratio": 0.25}), 28, 0)


@pytest.mark.parametrize("method", ["random", "dense-ft", "manual", "sleb", "taylor"])
def test_rounds_measure_nothing_for_methods_that_do_not_read_similarity(method: str) -> None:
    said = refusal(method=method, select={"rounds": 2, "drop": [3, 4]})
    assert f"select.rounds = 2: rounds measure similarity again, which {method} does not" in said


def test_more_rounds_than_drops_are_refused() -> None:
    assert refusal(select={"rounds": 8}) == ("select.rounds = 8: only 7 layers are to go; lower it")
    check_asked(params(select={"rounds": 7}), 28, 0)


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"manual"}))
def test_what_the_parameters_provide_is_accepted(method: str) -> None:
    check_measured(params(method=method, **READY), 28, 7)


@pytest.mark.parametrize("method", sorted(GREEDY))
@pytest.mark.parametrize("policy", made_up.POLICIES)
def test_no_scores_can_be_chosen_from_where_it_was_refused_beforehand(
    method: str, policy: Any
) -> None:
    rng = np.random.default_rng(1)
    for case in range(400):
        asked = made_up.question(method, rng, case, longest=20)
        wanted = asked.asked() | {"shortfall": policy}
        try:
            check_feasible(asked.scores.n_layers, 0, method=method, **wanted)
        except InputError:
            with pytest.raises(InputError):
                select(asked.scores, method=method, **wanted)


def test_pairs_may_follow_a_few_triplets() -> None:
    """(2, 3, 4) is the best of seven layers, and leaves a pair on either side."""
    scores = made_up.table_for("interlace", np.random.default_rng(0), 7)
    best = {key: float(key == ("cosine", 2, 3)) for key in scores.values}
    assert len(select(replace(scores, values=best), drops=3).drop) == 3
    assert len(check_feasible(7, 0, drops=3).drop) == 3


@pytest.mark.parametrize("n_layers", [28, 36])
def test_pooled_groups_at_40_percent_are_not_refused_before_they_are_measured(
    n_layers: int,
) -> None:
    check_asked(params(method="interlace-pooled", ratio=0.4, **READY), n_layers, 0)


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "dense-ft"},
        {"method": "wanda-2:4"},
        {"select": {"tuned": "none"}},
        {"method": "manual", "select": {"drop": [5], "tune": [9]}},
    ],
)
def test_local_healing_of_nothing_is_refused(asked: dict[str, Any]) -> None:
    check_asked(params(**asked), 28, 0)
    assert refusal(**asked, finetune={"local_steps": 5}).startswith("finetune.local_steps = 5: no")


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"manual", "dense-ft"}))
def test_local_healing_of_something_is_accepted(method: str) -> None:
    if METHODS[method].removes:
        check_asked(params(method=method, finetune={"local_steps": 5}, **READY), 28, 0)


@pytest.mark.parametrize("method", ["wanda-2:4", "magnitude-2:4"])
def test_nothing_is_made_up_for_where_no_layer_goes(method: str) -> None:
    said = refusal(method=method, export={"compensate": "lstsq"})
    assert said.startswith(f"export.compensate = lstsq: {method} drops no layer")
    assert check_asked(params(method=method), 28, 0) == 0
