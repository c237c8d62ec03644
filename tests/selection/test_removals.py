from __future__ import annotations

from pathlib import Path

import pytest
from report.report_cases import full_scores

from interlace.errors import InputError
from interlace.methods.registry import METHODS
from interlace.params.choosing import Select
from interlace.plan.removals import PaperRule, read_removals
from interlace.report.facts.roles import layer_roles
from interlace.scores.table import HOW_TO_MEASURE, MATH
from interlace.selection.removals import paper_rule, removals
from interlace.selection.select import select
from interlace.system.outputs import write_json


def test_every_method_that_removes_by_a_rule_is_asked_in_order() -> None:
    names = list(dict.fromkeys(removal.method for removal in removals(full_scores())))
    not_by_a_rule = ("manual", "dense-ft", "wanda-2:4", "magnitude-2:4")
    assert names == [name for name in METHODS if name not in not_by_a_rule]


def test_every_method_is_asked_with_what_it_takes() -> None:
    scores = full_scores(24, 3)
    by_method = {r.method: r for r in removals(scores, (0.25,), Select(alpha=0.2))}
    plan, mixed = select(scores, method="mixed", ratio=0.25, alpha=0.2), by_method["mixed"]
    assert (list(mixed.drop), list(mixed.tune)) == (plan.drop, plan.tune)
    assert layer_roles(mixed) == layer_roles(plan)


def test_a_method_that_cannot_choose_says_why() -> None:
    unmeasured = removals(full_scores(without=MATH), (0.1,))
    reasons = {removal.method: removal.reason for removal in unmeasured if removal.reason}
    way = f"not measured; {HOW_TO_MEASURE[MATH]}"
    assert reasons == {"math-aware": way, "mixed": way}
    by_method = {removal.method: removal for removal in removals(full_scores(24, 3), (0.4,))}
    assert not by_method["interlace"].drop
    assert by_method["interlace"].reason.startswith("9 layers cannot be dropped: ")


@pytest.mark.parametrize("ratio", [0, 1, 7])
def test_a_ratio_that_is_none_is_refused(ratio: float) -> None:
    with pytest.raises(InputError, match=f"ratio = {ratio}: "):
        removals(full_scores(), (0.1, ratio))


def test_a_rule_is_that_of_the_paper() -> None:
    assert (paper_rule("sleb").needs, paper_rule("no such method")) == (("sleb",), PaperRule())


def test_a_table_that_is_missing_or_strange_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"removals\.json: no such file"):
        read_removals(tmp_path / "removals.json")
    write_json(tmp_path / "removals.json", {"rule": {}, "removals": [], "plan": 1})
    with pytest.raises(InputError, match=r"removals\.json: plan: unknown key"):
        read_removals(tmp_path / "removals.json")
