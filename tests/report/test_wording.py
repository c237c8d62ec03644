from __future__ import annotations

import re

import pytest
from methods import made_up
from plans import make_plan
from report.report_cases import decided, full_scores, in_rounds, plan, small_plan

from interlace.evaluation.scores.result import Evaluation, ServingEngine
from interlace.plan.record import Group, Plan
from interlace.report.facts.decision import (
    asked,
    listed,
    notes,
    number,
    protection,
    score_name,
    shortfall_note,
    sinks,
    whole_periods,
)
from interlace.report.facts.wording import measured_by
from interlace.selection.select import select


@pytest.mark.parametrize(
    ("plan", "request_text"),
    [
        (plan(), "interlace: 25% of 24 layers"),
        (
            select(full_scores(24, 3), method="mixed", alpha=0.5),
            "mixed: 25% of 20 prunable layers, alpha 0.5",
        ),
        (plan("random"), "random: 25% of 24 layers, seed 0"),
        (in_rounds(), "interlace: 34% of 12 layers, 2 rounds"),
        (select(full_scores(), tuned="anchors"), "interlace: 25% of 24 layers, tuning the anchors"),
        (select(full_scores(), drops=7), "interlace: 29.2% of 24 layers"),
    ],
)
def test_the_request_names_method_share_base_and_options(plan: Plan, request_text: str) -> None:
    assert asked(plan) == request_text


def test_protected_layers_are_listed_by_the_reason() -> None:
    assert protection(select(full_scores(24, 3), method="mixed")) == (
        "4 protected: 0 to 2 (image features are added after them) and 23 (its paper's rule)"
    )
    by_hand = select(full_scores(), protect_first=2, protect_last=3)
    assert protection(by_hand) == "5 protected: 0, 1, 21 to 23 (set in select)"
    sleb = select(full_scores(), method="sleb")
    assert protection(sleb) == "2 protected: 0, 23 (its paper's rule)"
    assert protection(sleb.model_copy(update={"protection": {}})) == "2 protected: 0, 23"
    assert protection(select(full_scores())) == ""
    assert protection(select(made_up.with_sinks(full_scores(), [11], [22, 23]))) == (
        "3 protected: 11, 22, 23 (attention sink)"
    )


@pytest.mark.parametrize(
    ("plan", "note"),
    [
        (
            select(full_scores()),
            "attention sinks: not measured; run `collect` and `score` again",
        ),
        (select(made_up.with_sinks(full_scores(), [], [])), ""),
        (
            select(made_up.with_sinks(full_scores(), [11], [22, 23])),
            "attention sink (a token of huge norm): made by layer 11, ended by layers 22, 23",
        ),
        (
            select(made_up.with_sinks(full_scores(), [11], []), method="manual", drop=[4, 11]),
            "attention sink (a token of huge norm): made by layer 11;"
            " layer 11 is dropped all the same",
        ),
        (select(full_scores(), method="wanda-2:4"), ""),
    ],
)
def test_layers_around_a_massive_activation_are_named_dropped_or_not(plan: Plan, note: str) -> None:
    assert sinks(plan) == note
    assert (note in notes(plan)) == bool(note)


def test_a_budget_gives_its_reason() -> None:
    assert "ratio = auto: the fewest layers" in notes(decided())


def test_a_shortfall_names_its_layers_and_what_ran_out() -> None:
    short = small_plan().shortfall.model_copy(update={"missing": 1, "wanted": 3})
    few = select(full_scores(), method="shortgpt", ratio=0.5, protect_first=20, shortfall="fewer")
    pairs = select(full_scores(), method="interlace-tn", ratio=0.7, shortfall="fewer")
    for plan_in_want, facts in (
        (small_plan(), r"pairs drop 1 of 2 layers"),
        (small_plan().model_copy(update={"shortfall": short}), r"^1 of 3 .* triplets ran out"),
        (few, r"^8 of 12 .* only 4 are not protected"),
        (pairs, "pairs ran out"),
    ):
        assert re.search(facts, shortfall_note(plan_in_want))
    takes_pairs = select(full_scores(), method="interlace-tn")
    assert takes_pairs.shortfall.pairs == 6
    assert shortfall_note(plan()) == shortfall_note(takes_pairs) == ""


def test_neighbours_are_listed_together() -> None:
    assert listed([0, 1, 2, 5, 7, 8]) == "0 to 2, 5, 7, 8"
    assert listed([3, 4, 5], "-") == "3-5"
    assert listed([]) == "none"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.97394, "0.9739"),
        (0.0031622, "0.003162"),
        (-1.25, "-1.2500"),
        (3.0, "3"),
        (131800.5, "1.318e+05"),
    ],
)
def test_scores_of_any_size_can_be_told_apart(value: float, shown: str) -> None:
    assert number(value) == shown


def test_whole_periods_and_the_ratio_they_stand_for_are_named() -> None:
    update = {"period": 2, "ratio": 0.6, "base_layers": 6}
    plan = make_plan([1, 2], []).model_copy(update=update)
    assert whole_periods(plan) == (
        "1 whole period of 2 layers dropped: 2 of the 3 layers that the ratio is"
    )
    assert whole_periods(plan) in notes(plan)
    assert whole_periods(make_plan([1, 2], [])) == ""


@pytest.mark.parametrize(
    ("method", "name"),
    [("interlace", "S_2"), ("shortgpt", "sum of BI"), ("angular-block", "angle")],
)
def test_the_score_of_a_period_is_named(method: str, name: str) -> None:
    group = Group(kind="run", layers=(1, 2), score=0.5, drop=(1, 2))
    plan = make_plan([1, 2], []).model_copy(update={"period": 2, "method": method})
    assert score_name(plan, group) == name


def test_what_answered_an_evaluation_is_a_device_or_an_engine() -> None:
    facts = {"model": "dense", "scores": {}, "skipped": {}, "versions": {}}
    here = Evaluation(**facts, device="cpu", dtype="float32")
    vllm = Evaluation(
        **facts, engine=ServingEngine(name="vllm", version="0.11.0", command="vllm serve")
    )
    others = Evaluation(**facts, engine=ServingEngine(name="endpoint"))
    assert measured_by(here) == "on a CPU in float32"
    assert measured_by(vllm) == "by vllm serve, version 0.11.0"
    assert measured_by(others) == "by a server"
