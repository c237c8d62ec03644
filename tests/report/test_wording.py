from __future__ import annotations

import pytest
from report.report_cases import RULE, full_scores, in_rounds, plan, small_plan

from interlace.plan.record import Decision
from interlace.report.facts.decision import asked, listed, notes, number, protection, shortfall_note
from interlace.selection.removals import paper_rule
from interlace.selection.select import select


def test_the_base_of_the_ratio_is_named() -> None:
    assert asked(plan()) == "interlace: 25% of 24 layers"
    mixed = select(full_scores(24, 3), method="mixed", alpha=0.5)
    assert asked(mixed) == "mixed: 25% of 20 prunable layers, alpha 0.5"


def test_what_a_method_was_told_is_named() -> None:
    assert asked(select(full_scores(), method="random", seed=7)).endswith(", seed 7")
    assert asked(in_rounds()) == "interlace: 34% of 12 layers, 2 rounds"
    assert asked(select(full_scores(), tuned="anchors")).endswith(", tuning the anchors")


def test_a_share_of_no_round_percent_is_rounded() -> None:
    assert asked(select(full_scores(), drops=7)) == "interlace: 29.2% of 24 layers"


def test_the_reason_for_protection_is_what_it_follows_from() -> None:
    mixed = select(full_scores(24, 3), method="mixed")
    assert protection(mixed.model_copy(update={"deepstack_layers": 3}), paper_rule("mixed")) == (
        "4 protected: 0 to 2 (image features are added after them) and 23 (its paper's rule)"
    )
    unfed = mixed.model_copy(update={"deepstack_layers": 0})
    assert "0 to 2 (select.protect_first)" in protection(unfed, paper_rule("mixed"))
    given = select(full_scores(), protect_first=2, protect_last=3)
    assert protection(given, RULE) == (
        "5 protected: 0, 1 (select.protect_first) and 21 to 23 (select.protect_last)"
    )
    assert protection(select(full_scores(), method="sleb"), paper_rule("sleb")) == (
        "2 protected: 0 (its paper's rule) and 23 (its paper's rule)"
    )
    assert protection(select(full_scores()), RULE) == ""


def test_a_budget_gives_its_reason() -> None:
    decision = Decision(
        budget="params", target=0.8, drops=4, values={}, how="exact", reason="the fewest layers"
    )
    auto = select(full_scores(), ratio="auto", decision=decision)
    assert notes(auto, RULE) == ["ratio = auto: the fewest layers"]


def test_a_shortfall_is_said() -> None:
    assert "pairs drop 1 of 2 layers" in shortfall_note(small_plan())
    assert shortfall_note(plan()) == ""
    short = small_plan().shortfall.model_copy(update={"missing": 1, "wanted": 3})
    missing = small_plan().model_copy(update={"shortfall": short})
    assert shortfall_note(missing) == "1 of 3 layers not dropped: triplets ran out"


def test_pairs_are_no_shortfall_of_a_method_that_takes_pairs() -> None:
    assert select(full_scores(), method="interlace-tn").shortfall.pairs == 6
    assert shortfall_note(select(full_scores(), method="interlace-tn")) == ""
    assert "pairs ran out" in shortfall_note(
        select(full_scores(), method="interlace-tn", ratio=0.7, shortfall="fewer")
    )


def test_a_ranking_falls_short_for_want_of_layers() -> None:
    few = select(full_scores(), method="shortgpt", ratio=0.5, protect_first=20, shortfall="fewer")
    assert shortfall_note(few) == "8 of 12 layers not dropped: only 4 are not protected"


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
