from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report.report_cases import full_scores

from interlace.errors import InputError
from interlace.methods.registry import METHODS
from interlace.outputs import write_json
from interlace.params.choosing import Select
from interlace.plan.removals import PaperRule, Removals, read_removals
from interlace.report.facts.roles import layer_roles
from interlace.report.figures.removals import removal_map
from interlace.scores.table import MATH
from interlace.selection.removals import paper_rule, removals
from interlace.selection.select import select


def test_every_method_that_removes_by_a_rule_is_asked_in_order() -> None:
    names = list(dict.fromkeys(made.method for made in removals(full_scores())))
    not_by_a_rule = ("manual", "dense-ft", "wanda-2:4", "magnitude-2:4")
    assert names == [name for name in METHODS if name not in not_by_a_rule]


def test_every_method_is_asked_with_what_it_takes() -> None:
    scores = full_scores(24, 3)
    (found,) = [m for m in removals(scores, (0.25,), Select(alpha=0.2)) if m.method == "mixed"]
    plan = select(scores, method="mixed", ratio=0.25, alpha=0.2)
    assert (list(found.drop), list(found.tune)) == (plan.drop, plan.tune)
    assert layer_roles(found) == layer_roles(plan)


def test_what_was_not_measured_is_named() -> None:
    lacking = [made for made in removals(full_scores(without=MATH)) if made.reason]
    reasons = {made.method: made.reason for made in lacking if made.ratio == 0.1}
    assert reasons == {"math-aware": f"not measured: {MATH}", "mixed": f"not measured: {MATH}"}


def test_what_is_infeasible_says_why() -> None:
    made = [m for m in removals(full_scores(24, 3), (0.4,)) if m.method == "interlace"]
    assert not made[0].drop
    assert made[0].reason.startswith("9 layers cannot be dropped: disjoint triplets and pairs run")


@pytest.mark.parametrize("ratio", [0, 1, 7])
def test_a_ratio_that_is_none_is_refused(ratio: float) -> None:
    with pytest.raises(InputError, match=f"ratio = {ratio}: must be greater than 0"):
        removals(full_scores(), (0.1, ratio))


def test_the_table_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    table = Removals(rule=paper_rule("sleb"), removals=tuple(removals(full_scores(), (0.25,))))
    write_json(tmp_path / "removals.json", table.model_dump(mode="json"))
    assert read_removals(tmp_path / "removals.json") == table
    assert (table.rule.protect_first, paper_rule("no such method")) == (1, PaperRule())


def test_a_table_that_is_missing_or_strange_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"removals\.json: no such file"):
        read_removals(tmp_path / "removals.json")
    write_json(tmp_path / "removals.json", {"rule": {}, "removals": [], "plan": 1})
    with pytest.raises(InputError, match=r"removals\.json: plan: unknown key"):
        read_removals(tmp_path / "removals.json")


def test_dropped_layers_are_drawn_in_the_colour_of_dropping(tmp_path: Path) -> None:
    def share(name: str, ratio: float) -> float:
        removal_map(removals(full_scores(), (ratio,)), tmp_path / name)
        pixels = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        return float((pixels == (0xE4, 0x57, 0x2E)).all(axis=-1).mean())

    assert 1.5 * share("few.png", 0.1) < share("many.png", 0.25)


@pytest.mark.parametrize("n_layers", [24, 36, 64])
def test_a_strip_is_at_least_a_tenth_of_an_inch_per_layer(n_layers: int, tmp_path: Path) -> None:
    removal_map(removals(full_scores(n_layers), (0.25,)), tmp_path / "map.png")
    assert Image.open(tmp_path / "map.png").width > 160 * 0.1 * n_layers
