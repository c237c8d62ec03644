"""Methods are found by name, and say what they need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from methods import made_up

from interlace.errors import InputError
from interlace.methods.registry import METHODS, find_method
from interlace.scores.table import HOW_TO_MEASURE
from interlace.selection.select import select

STAGE_AND_PARAMETER = {
    "cosine": ["`collect`", "collect.max_span"],
    "cosine/math": ["`collect`", "probes.per_task", "probes.math_sources"],
    "cosine/nonmath": ["`collect`", "probes.per_task", "probes.nonmath_sources"],
    "angular": ["`collect`", "collect.max_span"],
    "pooled": ["`collect`", "probes.per_task", "collect.pooled to probes"],
    "cka": ["`collect`", "probes.per_task", "collect.pooled to probes"],
    "sleb": ["`sensitivity`", "method to sleb"],
    "taylor": ["`sensitivity`", "method to taylor"],
}
PUBLISHED = ["interlace", "interlace-oa", "interlace-tn", "random", "consecutive", "dense-ft"]
DOMAIN_AWARE = ["math-aware", "nonmath-aware", "mixed", "cka", "interlace-pooled"]
OTHERS = ["interlace-optimal", "shortgpt", "angular-block", "sleb", "taylor", "manual"]
SPARSE = ["wanda-2:4", "magnitude-2:4"]
NEEDS = [(name, criterion) for name, rule in METHODS.items() for criterion in rule.needs]
SCORES = made_up.everything(np.random.default_rng(0), 12)


def test_the_methods_of_both_papers_and_the_baselines_are_there() -> None:
    assert {*PUBLISHED, *DOMAIN_AWARE, *OTHERS, *SPARSE} == METHODS.keys()


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


def test_every_criterion_that_a_method_needs_has_a_way_to_be_measured() -> None:
    assert {need for _, need in NEEDS} == HOW_TO_MEASURE.keys() == STAGE_AND_PARAMETER.keys()


@pytest.mark.parametrize(("method", "criterion"), NEEDS)
def test_a_criterion_that_is_missing_is_named_with_stage_and_parameter(
    method: str, criterion: str
) -> None:
    values = {key: value for key, value in SCORES.values.items() if key[0] != criterion}
    with pytest.raises(InputError, match=f"'{criterion}'") as caught:
        select(replace(SCORES, values=values), method=method)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in STAGE_AND_PARAMETER[criterion])


@pytest.mark.parametrize("method", METHODS)
def test_a_method_reads_only_the_criteria_that_it_needs(method: str) -> None:
    values = {k: v for k, v in SCORES.values.items() if k[0] in METHODS[method].needs}
    plan = select(replace(SCORES, values=values), method=method, drop=[3])
    assert plan == select(SCORES, method=method, drop=[3])


@pytest.mark.parametrize("span", [2, 3])
def test_a_span_that_is_missing_is_named(span: int) -> None:
    scores = made_up.table_for("interlace", np.random.default_rng(0), 5)
    values = {key: value for key, value in scores.values.items() if key[2] != span}
    with pytest.raises(InputError, match=rf"'cosine' of {span} layer.*collect\.max_span"):
        select(replace(scores, values=values), drops=2)
