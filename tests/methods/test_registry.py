"""Methods are found by name, and say what they need."""

from __future__ import annotations

import numpy as np
import pytest
from methods import made_up

from interlace.errors import InputError
from interlace.methods.registry import METHODS, named
from interlace.scores.table import WAYS, Scores
from interlace.selection.select import select

STAGE_AND_PARAMETER = {
    "cosine": ["`collect`", "collect.max_span"],
    "cosine/math": ["`collect`", "probes.per_task", "probes.math_sources"],
    "cosine/nonmath": ["`collect`", "probes.per_task", "probes.nonmath_sources"],
    "angular": ["`collect`", "collect.max_span"],
    "pooled": ["`collect`", "probes.per_task", "collect.pooled to probes"],
    "cka": ["`collect`", "probes.per_task", "collect.pooled to probes"],
    "sleb": ["`sensitivity`", "method to sleb", "dvc repro"],
    "taylor": ["`sensitivity`", "method to taylor", "dvc repro"],
}
PUBLISHED = ["interlace", "interlace-oa", "interlace-tn", "random", "consecutive", "dense-ft"]
DOMAIN_AWARE = ["math-aware", "nonmath-aware", "mixed", "cka", "interlace-pooled"]
OTHERS = ["interlace-optimal", "shortgpt", "angular-block", "sleb", "taylor", "manual"]
SPARSE = ["wanda-2:4", "magnitude-2:4"]


def needs() -> list[tuple[str, str]]:
    return [(name, criterion) for name, rule in METHODS.items() for criterion in rule.needs]


def test_the_methods_of_both_papers_and_the_baselines_are_there() -> None:
    assert {*PUBLISHED, *DOMAIN_AWARE, *OTHERS, *SPARSE} == METHODS.keys()


@pytest.mark.parametrize("method", SPARSE)
def test_a_sparse_method_drops_and_tunes_nothing_and_says_what_it_does(method: str) -> None:
    plan = select(made_up.everything(np.random.default_rng(0), 12), method=method, ratio=0.001)
    assert (plan.drop, plan.tune, plan.freeze) == ([], [], list(range(12)))
    assert plan.sparsity == method
    assert {name for name, rule in METHODS.items() if rule.sparsity} == {*SPARSE}


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("interlase", "interlace"),
        ("consecutiv", "consecutive"),
        ("Random", "random"),
        ("short-gpt", "shortgpt"),
        ("optimal", "interlace-optimal"),
        ("densft", "dense-ft"),
        ("math", "math-aware"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(InputError, match=f"method = '{wrong}': .* did you mean {near}"):
        named(wrong)


def test_every_criterion_that_a_method_needs_has_a_way_to_be_measured() -> None:
    assert {criterion for _, criterion in needs()} == WAYS.keys() == STAGE_AND_PARAMETER.keys()


@pytest.mark.parametrize(("method", "criterion"), needs())
def test_a_criterion_that_is_missing_is_named_with_stage_and_parameter(
    method: str, criterion: str
) -> None:
    scores = made_up.everything(np.random.default_rng(0), 12)
    values = {key: value for key, value in scores.values.items() if key[0] != criterion}
    with pytest.raises(InputError, match=f"scores hold no '{criterion}' of") as caught:
        select(Scores(12, 0, values, {}), method=method, ratio=0.25)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in STAGE_AND_PARAMETER[criterion])


@pytest.mark.parametrize(("method", "criterion"), needs())
def test_what_a_method_does_not_need_it_does_not_read(method: str, criterion: str) -> None:
    scores = made_up.everything(np.random.default_rng(1), 12)
    needed = {k: v for k, v in scores.values.items() if k[0] in METHODS[method].needs}
    alone = select(Scores(12, 0, needed, {}), method=method, ratio=0.25)
    assert alone == select(scores, method=method, ratio=0.25)


@pytest.mark.parametrize("span", [2, 3])
def test_a_span_that_is_missing_is_named(span: int) -> None:
    scores = made_up.table_for("interlace", np.random.default_rng(0), 5)
    values = {key: value for key, value in scores.values.items() if key[2] != span}
    with pytest.raises(InputError, match=rf"no 'cosine' of {span} layer\(s\); `collect` measures"):
        select(Scores(5, 0, values, {}), drops=2)
