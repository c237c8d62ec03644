"""Methods are found by name, and say what they need."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from methods import made_up

from interlace.errors import InputError
from interlace.methods.registry import METHODS, find_method
from interlace.params.whole import Params
from interlace.scores.table import HOW_TO_MEASURE
from interlace.selection.select import select

SPARSE = ["wanda-2:4", "magnitude-2:4"]
NEEDS = [(name, criterion) for name, rule in METHODS.items() for criterion in rule.needs]
SCORES = made_up.everything(np.random.default_rng(0), 12)


@pytest.mark.parametrize("method", SPARSE)
def test_a_sparse_method_drops_and_tunes_nothing_and_says_what_it_does(method: str) -> None:
    plan = select(SCORES, method=method, ratio=0.001)
    assert (plan.drop, plan.tune, plan.sparsity) == ([], [], method)
    assert {name for name, rule in METHODS.items() if rule.sparsity} == {*SPARSE}


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("interlase", "interlace"), ("short-gpt", "shortgpt"), ("optimal", "interlace-optimal")],
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"method = '{wrong}': .* did you mean {nearest}"):
        find_method(wrong)


def test_nonsense_is_answered_with_all_names() -> None:
    with pytest.raises(InputError, match=r"'banana': no such method; \(interlace, ") as caught:
        find_method("banana")
    assert "did you mean" not in str(caught.value)


def test_every_criterion_that_a_method_needs_has_a_way_to_be_measured() -> None:
    assert {need for _, need in NEEDS} == HOW_TO_MEASURE.keys()
    for way in HOW_TO_MEASURE.values():
        assert "`collect` measures" in way or "`sensitivity` measures" in way
        for section, field in re.findall(r"(\w+)\.(\w+)", way):
            assert field in Params.model_fields[section].annotation.model_fields


@pytest.mark.parametrize(("method", "criterion"), NEEDS)
def test_a_criterion_that_is_missing_is_named_with_the_way_to_measure_it(
    method: str, criterion: str
) -> None:
    values = {key: value for key, value in SCORES.values.items() if key[0] != criterion}
    with pytest.raises(InputError, match=f"'{criterion}'") as caught:
        select(replace(SCORES, values=values), method=method)
    assert "\n" not in str(caught.value) and HOW_TO_MEASURE[criterion] in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_reads_only_the_criteria_that_it_needs(method: str) -> None:
    needs = METHODS[method].needs
    sets = ("search/",) if "search" in needs else ()
    values = {k: v for k, v in SCORES.values.items() if k[0] in needs or k[0].startswith(sets)}
    plan = select(replace(SCORES, values=values), method=method, drop=[3])
    assert plan == select(SCORES, method=method, drop=[3])


@pytest.mark.parametrize("span", [2, 3])
def test_a_span_that_is_missing_is_named(span: int) -> None:
    scores = made_up.table_for("interlace", np.random.default_rng(0), 5)
    values = {key: value for key, value in scores.values.items() if key[2] != span}
    with pytest.raises(InputError, match=rf"'cosine' of {span} layer.*collect\.max_span"):
        select(replace(scores, values=values), drops=2)
