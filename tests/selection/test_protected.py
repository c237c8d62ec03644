"""Protected layers and their reasons: what `select.protect` spares, by method."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from methods import made_up

import interlace
from interlace.errors import InputError
from interlace.methods.choice import Choice
from interlace.methods.registry import METHODS
from interlace.params.choosing import Select
from interlace.params.whole import read_params
from interlace.scores.resample import REPLICATES, RESAMPLES
from interlace.scores.sinks import SinkLayers
from interlace.scores.table import Scores
from interlace.selection.feasible import check_parameters, loss_criterion
from interlace.selection.select import select, select_layers
from interlace.selection.stability import stability

LAYERS, FED = 12, 3
START, END = (5,), (9, 10)
SINKS = [5, 9, 10]
PROFILES = Path(__file__).parents[2] / "profiles"
FED_LAYERS = {"deepstack": [0, 1, 2]}
ENDS = {"paper": [0, 11]}


def scores(start: tuple[int, ...] = START, end: tuple[int, ...] = END, seed: int = 0) -> Scores:
    """Random scores of twelve layers, three of them fed by DeepStack, with sinks."""
    table = made_up.everything(np.random.default_rng(seed), LAYERS)
    return made_up.with_sinks(replace(table, deepstack_layers=FED), start, end)


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("interlace", {}, FED_LAYERS | {"sink": SINKS}),
        ("interlace", {"protect": "none"}, {}),
        ("interlace", {"protect": [4, 7]}, {"user": [4, 7]}),
        ("interlace", {"protect": []}, {}),
        ("interlace", {"protect_first": 0}, {"sink": SINKS}),
        (
            "interlace",
            {"protect_first": 6, "protect_last": 1},
            {"user": [*range(6), 11], "sink": [9, 10]},
        ),
        ("mixed", {}, FED_LAYERS | {"paper": [11], "sink": SINKS}),
        ("mixed", {"protect": "none"}, ENDS),
        ("mixed", {"protect": [4]}, {"user": [4]}),
        ("shortgpt", {}, FED_LAYERS | {"sink": SINKS}),
        ("taylor", {}, FED_LAYERS | {"sink": SINKS}),
        ("random", {}, FED_LAYERS | {"sink": SINKS}),
        ("sleb", {"protect_first": 1}, {"user": [0], "paper": [11]}),  # its losses see sinks
        ("sleb", {"protect": "none"}, ENDS),
        ("search", {"protect": "none"}, ENDS),
        ("dense-ft", {}, FED_LAYERS),  # drops nothing
    ],
)
def test_layers_are_protected_by_reason(
    method: str, options: dict[str, Any], expected: dict[str, list[int]]
) -> None:
    plan = select(scores(), method=method, drops=1, **options)
    assert plan.protection == expected
    assert plan.protected == sorted(layer for layers in expected.values() for layer in layers)
    assert plan.sinks == SinkLayers(START, END)  # spared or not
    assert not set(plan.drop) & set(plan.protected)


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"manual", "sleb", "search"}))
@pytest.mark.parametrize("seed", range(5))
def test_no_method_drops_a_sink_layer_unless_told_to(method: str, seed: int) -> None:
    table = scores(seed=seed)
    options: Any = {"method": method, "drops": 4, "shortfall": "fewer", "protect_first": 0}
    assert not set(select(table, **options).drop) & set(SINKS)
    options["protect_first"] = "auto"
    unspared = select(table, **options | {"protect": "none"})
    bare = made_up.everything(np.random.default_rng(seed), LAYERS)
    assert unspared.drop == select(bare, **options).drop


def test_a_choice_by_hand_may_drop_a_sink_layer() -> None:
    plan = select(scores(), method="manual", drop=[5, 9])
    assert (plan.drop, plan.protection) == ([5, 9], FED_LAYERS)


def test_sinks_do_not_change_what_the_ratio_is_a_share_of() -> None:
    for method in ("mixed", "interlace-oa"):
        spared, bare = (
            select(table, method=method, ratio=0.25, protect_first=0, base="prunable")
            for table in (scores(), scores((), ()))
        )
        assert (spared.base_layers, len(spared.drop)) == (bare.base_layers, len(bare.drop))


def test_a_table_without_measurements_of_sinks_protects_the_layers_that_deepstack_feeds() -> None:
    table = replace(made_up.everything(np.random.default_rng(0), LAYERS), deepstack_layers=FED)
    plan = select(table, drops=1)
    assert (plan.protection, plan.sinks) == (FED_LAYERS, None)


@pytest.mark.parametrize("method", ["interlace", "shortgpt", "random", "consecutive"])
def test_too_few_layers_beside_sinks_are_refused_with_the_way_out(method: str) -> None:
    table = scores(start=(4, 6), end=(8, 10))
    message = (
        r"^[^\n]*cannot be dropped[^\n]*; select\.protect = auto spares layers 4, 6, 8, 10, which"
        r" make or end a massive activation: none drops them all the same\Z"
    )
    with pytest.raises(InputError, match=message):
        select(table, method=method, drops=6 if method != "interlace" else 3, protect_first=3)


def test_sinks_are_not_blamed_for_what_fails_without_them() -> None:
    with pytest.raises(InputError, match=r"cannot be dropped") as caught:
        select(scores(), method="shortgpt", drops=11)
    assert "massive" not in str(caught.value)


def test_a_round_spares_the_sinks_of_the_model_it_measures() -> None:
    dense = made_up.with_sinks(made_up.everything(np.random.default_rng(0), 8), [2])
    first = select(dense, method="shortgpt", drops=1)
    kept = tuple(i for i in range(8) if i not in first.drop)

    def later(choice: Choice) -> Scores:
        table = made_up.table_for("shortgpt", np.random.default_rng(1), 7, kept=kept)
        every = made_up.with_sinks(table, [0, 1, 3, 4, 5])
        return replace(every, kept_layers=kept)

    plan = select(dense, method="shortgpt", drops=2, rounds=2, later=later)
    spared = {2} | {kept[position] for position in (0, 1, 3, 4, 5)}
    assert plan.protection == {"sink": sorted(spared)}
    assert len(plan.drop) == 2 and not spared & {*plan.drop}


@pytest.mark.parametrize(
    ("protect", "complaint"),
    [
        ([3, 3], r"protect = .*: layer 3 is named twice"),
        ([-1], r"protect = \(-1,\): must be auto, none, or a list"),
        ([1.5], r"must be auto, none, or a list of layers counted from 0"),
        ("some", r"protect = 'some': must be auto, none, or a list"),
        ([2, 12], r"select\.protect = \[2, 12\]: layer 12 is not one of the layers 0 to 11"),
    ],
)
def test_a_wrong_list_of_layers_is_named(protect: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        interlace.select(scores(), drops=1, protect=protect)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("protect", "dumped"), [("auto", "auto"), ("none", "none"), ([7, 4], [4, 7])]
)
def test_protection_is_written_without_a_warning(protect: Any, dumped: Any) -> None:
    assert Select(protect=protect).model_dump(mode="json")["protect"] == dumped


@pytest.mark.parametrize("end", ["protect_first", "protect_last"])
@pytest.mark.parametrize("protect", ["none", [4, 7], []])
def test_one_of_two_ways_protects(end: str, protect: Any) -> None:
    ends: dict[str, Any] = {end: 0}
    with pytest.raises(InputError, match=rf"protect = .* and {end} = 0: .* set {end} to auto"):
        interlace.select(scores(), drops=1, protect=protect, **ends)


@pytest.mark.parametrize(
    ("select_options", "complaint"),
    [
        ({"protect": [0, 40]}, r"select\.protect = \[0, 40\]: layer 40 is not .* 0 to 27"),
        ({"protect": [*range(2, 26)]}, r"7 layers cannot be dropped.* protect fewer layers"),
        ({"protect": [*range(28)], "base": "prunable"}, r"all 28 .* shorten select\.protect"),
    ],
)
def test_protection_that_cannot_be_is_refused_before_anything_is_measured(
    select_options: dict[str, Any], complaint: str
) -> None:
    params = read_params(PROFILES / "qwen3-vl-2b.yaml")
    params = params.model_copy(update={"select": Select(**select_options)})
    with pytest.raises(InputError, match=complaint):
        check_parameters(params, 28, 3)


def test_the_removals_of_sleb_are_measured_without_the_named_layers() -> None:
    params = read_params(PROFILES / "qwen3-vl-2b.yaml")
    options = {"method": "sleb", "select": Select(protect=(4, 5))}
    criterion = loss_criterion(params.model_copy(update=options), 28, 3)
    assert criterion == {"criterion": "sleb", "protected": [4, 5]}


def test_resamples_spare_the_same_layers() -> None:
    table = scores()
    choose = partial(select_layers, method="shortgpt", ratio_or_drops=4, options=Select())
    columns = [("cosine", layer, 1, table.values["cosine", layer, 1]) for layer in range(LAYERS)]
    rows = [
        dict(zip(REPLICATES.names, (draw, *column), strict=True))
        for column in columns
        for draw in range(RESAMPLES)
    ]
    replicates = pa.Table.from_pylist(rows, schema=REPLICATES)
    certainty = stability(choose(table), table, replicates, choose)
    assert certainty is not None and certainty.same == 1


def test_numbers_of_layers_may_be_numpy_s() -> None:
    assert select(scores(), drops=1, protect=np.array([7, 4])).protected == [4, 7]


@pytest.mark.parametrize(
    ("size", "n_layers", "ends"),
    [
        *(("2b", 28, 0), ("4b", 36, 0), ("8b", 36, 0)),
        *(("2b-domain-aware", 28, 1), ("4b-domain-aware", 36, 1)),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_published_profiles_choose_as_before_sinks_were_measured(
    size: str, n_layers: int, ends: int, seed: int
) -> None:
    params = read_params(PROFILES / f"qwen3-vl-{size}.yaml")
    assert params.select.protect == "none"
    table = made_up.everything(np.random.default_rng(seed), n_layers)
    table = replace(made_up.with_sinks(table, [2, 7], [n_layers - 2]), deepstack_layers=3)
    ends_alone = {"protect": "auto", "protect_first": ends, "protect_last": ends}
    before = Select(**params.select.model_dump() | ends_alone)
    bare = replace(table, values={k: v for k, v in table.values.items() if "sink" not in k[0]})
    for ratio in (0.1, 0.25):
        now = select_layers(table, params.method, ratio, params.select)
        then = select_layers(bare, params.method, ratio, before)
        assert (now.drop, now.tune, now.protected) == (then.drop, then.tune, then.protected)
