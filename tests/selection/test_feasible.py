"""Parameters that cannot lead to a plan are refused before anything is measured, in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import numpy as np
import pytest
from methods import made_up

from interlace.errors import InputError
from interlace.methods.registry import METHODS
from interlace.params.measuring import Mode
from interlace.params.whole import Params
from interlace.plan.record import Plan
from interlace.selection.feasible import check_parameters, feasible_plan, loss_criterion

GREEDY = sorted({"interlace", "interlace-oa", "interlace-tn", "interlace-pooled"})  # leave gaps
CHOOSING = sorted(METHODS.keys() - {"manual"})
EXACT = sorted(METHODS.keys() - {*GREEDY} - {"manual"})
PROBES = {"per_task": 100}
MODES = get_args(Mode)


def checked(n_layers: int = 28, deepstack_layers: int = 0, **values: Any) -> int | None:
    values = {"model": {"id": "m"}, "data": {"id": "d"}, "probes": PROBES} | values
    return check_parameters(Params.model_validate(values), n_layers, deepstack_layers)


def refusal(n_layers: int = 28, deepstack_layers: int = 0, **values: Any) -> str:
    with pytest.raises(InputError) as caught:
        checked(n_layers, deepstack_layers, **values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def outcomes(question: made_up.Question, mode: Mode) -> tuple[Any, Any]:
    """How many layers are foreseen to go and go; or why it is refused beforehand and later."""

    def outcome(choose: Callable[[], Plan]) -> Any:
        try:
            return len(choose().drop)
        except InputError as error:
            return str(error)

    request = question.method, question.drops, question.options
    foresee = partial(feasible_plan, question.scores.n_layers, 0, *request, mode)
    return outcome(foresee), outcome(question.plan)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", EXACT)
def test_a_refusal_or_k_beforehand_is_the_real_one_with_any_scores(method: str, mode: Mode) -> None:
    rng = np.random.default_rng(0)
    kinds = set()
    for case in range(150):
        foreseen, real = outcomes(made_up.question(method, rng, case, 40, mode), mode)
        assert foreseen == real
        kinds.add(type(real))
    assert kinds == ({int, str} if METHODS[method].removes else {int})


@pytest.mark.parametrize("method", GREEDY)
@pytest.mark.parametrize("policy", made_up.POLICIES)
@pytest.mark.parametrize("mode", MODES)
def test_greedy_choices_never_go_further_than_was_foreseen(
    method: str, policy: Any, mode: Mode
) -> None:
    rng = np.random.default_rng(1)
    for case in range(300):
        question = made_up.question(method, rng, case, 30, mode)
        options = question.options.model_copy(update={"shortfall": policy})
        foreseen, real = outcomes(replace(question, options=options), mode)
        assert isinstance(real, str) or (isinstance(foreseen, int) and real <= foreseen)


@pytest.mark.parametrize("method", CHOOSING)
@pytest.mark.parametrize(
    ("n_layers", "of_all", "of_prunable"),
    [(28, [2, 4, 5, 7], [2, 3, 5, 6]), (36, [3, 5, 7, 9], [3, 5, 6, 8])],
)
def test_published_ratios_are_accepted(
    method: str, n_layers: int, of_all: list[int], of_prunable: list[int]
) -> None:
    rule = METHODS[method]
    expected = of_all if rule.base == "all" else of_prunable
    values = {"method": method, "heal": {"local_steps": 5 if rule.removes else 0}}
    drops = [checked(n_layers, ratio=ratio, **values) for ratio in (0.1, 0.15, 0.2, 0.25)]
    assert drops == (expected if rule.removes else [0] * 4)


def test_protection_of_deepstack_layers_counts() -> None:
    assert checked(30, 3, ratio=0.3) == 9
    assert "largest feasible K is 4" in refusal(30, 19, ratio=0.3)


@pytest.mark.parametrize(("method", "largest"), [("interlace", 9), ("interlace-tn", 14)])
def test_more_drops_than_can_be_are_refused_with_the_largest_k(method: str, largest: int) -> None:
    values: dict[str, Any] = {"method": method, "select": {"shortfall": "error"}}
    assert f"largest feasible K is {largest}" in refusal(ratio=1 - 1e-9, **values)
    assert checked(ratio=(largest + 0.5) / 28, **values) == largest


@pytest.mark.parametrize(
    ("method", "policy", "n_layers", "largest"),
    [
        ("interlace", "error", 9, (3, 2)),
        ("interlace", "pairs", 6, (2, 2)),
        ("interlace", "pairs", 8, (3, 3)),
        ("interlace-optimal", "pairs", 8, (4, 3)),
        ("interlace-tn", "error", 8, (4, 4)),
        ("interlace-tn", "error", 7, (3, 3)),
        ("shortgpt", "pairs", 8, (7, 7)),
        ("consecutive", "error", 8, (7, 7)),
        ("angular-block", "error", 8, (7, 7)),
    ],
)
def test_the_largest_k_counts_the_last_layer_as_the_mode_does(
    method: str, policy: Any, n_layers: int, largest: tuple[int, int]
) -> None:
    for mode, most in zip(MODES, largest, strict=True):
        select = {"shortfall": policy, "protect_first": 0, "protect_last": 0}
        values: dict[str, Any] = {"method": method, "select": select, "collect": {"mode": mode}}
        assert checked(n_layers, ratio=(most + 0.5) / n_layers, **values) == most
        if most + 1 < n_layers:
            complaint = refusal(n_layers, ratio=(most + 1.5) / n_layers, **values)
            assert f"largest feasible K is {most}" in complaint


@pytest.mark.parametrize("method", ["wanda-2:4", "magnitude-2:4"])
def test_sparse_methods_take_any_ratio_and_no_compensation(method: str) -> None:
    assert checked(method=method, ratio=0.001) == 0
    assert "export.compensate = lstsq" in refusal(method=method, export={"compensate": "lstsq"})


def test_a_choice_by_hand_is_checked_against_the_model() -> None:
    by_hand: dict[str, Any] = {"method": "manual", "select": {"drop": [4, 9], "tune": [5]}}
    assert checked(28, 3, **by_hand) == 2
    assert "layer 9 is not one of the layers 0 to 7" in refusal(8, **by_hand)
    assert "layer 4 is protected" in refusal(28, 5, **by_hand)


@pytest.mark.parametrize("method", ["manual", "dense-ft", "wanda-2:4", "magnitude-2:4"])
def test_a_budget_has_nothing_to_decide_for_some(method: str) -> None:
    values: dict[str, Any] = {"budget": {"params": 0.8}, "select": {"drop": [3]}}
    assert f"ratio = auto: {method}" in refusal(method=method, ratio="auto", **values)


def test_a_budget_is_one_target_and_decides_later() -> None:
    assert "none is set" in refusal(ratio="auto")
    two = refusal(ratio="auto", budget={"params": 0.8, "retention": 90})
    assert "budget.params = 0.8, budget.retention = 90.0" in two
    assert checked(ratio="auto", budget={"retention": 90}, select={"rounds": 3}) is None


@pytest.mark.parametrize(
    ("method", "section", "too_little", "enough", "complaint"),
    [
        ("math-aware", "probes", {"per_task": 0}, PROBES, "probes.per_task = 0"),
        ("nonmath-aware", "probes", {"per_task": 0}, PROBES, "probes.per_task = 0"),
        ("cka", "collect", {"pooled": "none"}, {"pooled": "all"}, "collect.pooled"),
        ("interlace-pooled", "collect", {"pooled": "none"}, {}, "collect.pooled"),
        ("angular-block", "collect", {"max_span": 6}, {"max_span": 7}, "spans of 7 .*max_span = 6"),
        (
            *("sleb", "sensitivity", {"max_ratio": 0.22}, {"max_ratio": 0.25}),
            "drop 7 layers, .*max_ratio = 0.22 removes 6",
        ),
        (
            *("search", "sensitivity", {"max_ratio": 0.22}, {"max_ratio": 0.25}),
            "drop 7 layers, .*max_ratio = 0.22 removes 6",
        ),
        (
            *("search", "sensitivity", {"passes": 5}, {"passes": 25}),
            "sensitivity.passes = 5: the budget ends before .*; raise it to [0-9]+ or more$",
        ),
        ("interlace", "select", {"rounds": 8}, {"rounds": 7}, "select.rounds = 8: only 7 layers"),
    ],
)
def test_a_measurement_that_the_parameters_do_not_provide_is_named(
    method: str, section: str, too_little: Any, enough: Any, complaint: str
) -> None:
    assert re.search(complaint, refusal(method=method, **{section: too_little}))
    assert checked(method=method, **{section: enough}) in (6, 7)


@pytest.mark.parametrize("method", ["random", "dense-ft", "manual", "sleb", "search", "taylor"])
def test_rounds_measure_nothing_for_methods_that_do_not_read_similarity(method: str) -> None:
    complaint = refusal(method=method, select={"rounds": 2, "drop": [3, 4]})
    assert "select.rounds = 2" in complaint and method in complaint


@pytest.mark.parametrize(
    "values",
    [
        {"method": "dense-ft"},
        {"method": "wanda-2:4"},
        {"select": {"tuned": "none"}},
        {"method": "manual", "select": {"drop": [5], "tune": [9]}},
    ],
)
def test_local_healing_of_nothing_is_refused(values: dict[str, Any]) -> None:
    checked(**values)
    assert "heal.local_steps = 5" in refusal(**values, heal={"local_steps": 5})


def test_a_reference_without_training_is_refused() -> None:
    checked(reference="dense-ft")
    complaint = refusal(reference="dense-ft", finetune={"max_steps": 0})
    assert "reference = dense-ft" in complaint and "finetune.max_steps = 0" in complaint


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"candidates": 1}, "candidates = 1: interlace has one plan only, and nothing to compare"),
        ({"candidates": 3, "rounds": 2}, "candidates = 3: plans of one round are compared, and"),
        (
            {"candidates": 1, "candidate_methods": ["serch"]},
            r"candidate_methods, serch: method = 'serch': no such method; did you mean search\?",
        ),
        (
            {"candidates": 1, "candidate_methods": ["dense-ft"]},
            "candidate_methods, dense-ft: dense-ft drops no layer, so there is no plan to compare",
        ),
        (
            {"candidates": 1, "candidate_methods": ["sleb", "search"]},
            "candidates = 1: search and sleb are measured in runs of their own; leave one of them",
        ),
    ],
    ids=["one", "rounds", "unknown", "drops none", "two losses"],
)
def test_candidates_that_cannot_be_compared_are_refused(
    values: dict[str, Any], complaint: str
) -> None:
    assert re.search(complaint, refusal(select=values))


@pytest.mark.parametrize("method", ["manual", "dense-ft", "wanda-2:4"])
def test_a_method_of_one_plan_has_no_candidates(method: str) -> None:
    complaint = refusal(method=method, select={"candidates": 4, "drop": [5], "tune": [6]})
    assert complaint.startswith(f"select.candidates = 4: {method}")


def test_candidates_of_further_methods_need_what_these_read() -> None:
    by_chance: dict[str, Any] = {"candidates": 1, "candidate_methods": ["cka"]}
    assert checked(select=by_chance) == 7
    complaint = refusal(select=by_chance, probes={"per_task": 0})
    assert complaint.startswith("select.candidate_methods, cka: method = cka is measured on probes")
    complaint = refusal(select=by_chance, data={"id": "d", "calibration_fraction": 1})
    assert complaint.startswith("select.candidates: no row can judge them")


def test_a_further_method_that_cannot_drop_as_many_is_named() -> None:
    select = {"candidates": 1, "candidate_methods": ["interlace"], "shortfall": "error"}
    complaint = refusal(method="shortgpt", ratio=0.4, select=select)
    assert complaint.startswith("select.candidate_methods, interlace: 11 layers cannot be dropped")


def test_a_further_method_has_its_loss_measured_too() -> None:
    select = {"candidates": 1, "candidate_methods": ["angular-block", "search"]}
    values = {"model": {"id": "m"}, "data": {"id": "d"}, "select": select}
    expected = {"criterion": "search", "protected": [0, 1, 2, 5]}
    assert loss_criterion(Params.model_validate(values), 6, 3) == expected


@pytest.mark.parametrize(
    ("method", "select", "expected"),
    [
        ("interlace", {}, None),
        ("sleb", {}, {"criterion": "sleb", "protected": [0, 1, 2, 5]}),
        ("sleb", {"protect_first": 1}, {"criterion": "sleb", "protected": [0, 5]}),
        ("search", {}, {"criterion": "search", "protected": [0, 1, 2, 5]}),
        ("taylor", {"protect_first": 1}, {"criterion": "taylor", "protected": []}),
    ],
)
def test_the_loss_is_measured_as_the_method_needs_it(
    method: str, select: dict[str, int], expected: dict[str, Any] | None
) -> None:
    values = {"model": {"id": "m"}, "data": {"id": "d"}, "method": method, "select": select}
    assert loss_criterion(Params.model_validate(values), 6, 3) == expected
