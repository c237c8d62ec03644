"""A plan is named where a runtime that counts layers would run the pruned model wrongly."""

from __future__ import annotations

from typing import Any

import family_models
import pytest
from plans import make_plan

from interlace.checkpoint.config import pruned_config
from interlace.model.families import text_config
from interlace.model.kinds import LayerKinds, layer_kinds
from interlace.model.rules import DECODERS
from interlace.plan.record import Plan
from interlace.plan.runtimes import FIXED_PERIODS, KNOWN_BY_DEPTH, misreadings

RULES = [(decoder, rule) for decoder, rules in FIXED_PERIODS.items() for rule in rules]


def plan_of(decoder: str, n_layers: int, drop: list[int]) -> Plan:
    """A plan for a decoder whose last layer of each period is of another kind."""
    rule = FIXED_PERIODS[decoder][0]
    first: Any = 1 if rule.last == 0 else "other_kind"
    entries = [rule.last if (i + 1) % rule.period == 0 else first for i in range(n_layers)]
    kinds = LayerKinds(decoder=decoder, fields={rule.field: tuple(entries)})
    return make_plan(drop, [], n_layers).model_copy(update={"layer_kinds": kinds})


@pytest.mark.parametrize(("decoder", "rule"), RULES)
def test_a_plan_that_breaks_a_runtime_s_period_is_named_with_the_way_out(
    decoder: str, rule: Any
) -> None:
    n_layers = 4 * rule.period + 1
    last = rule.period - 1
    (message,) = (
        note
        for note in misreadings(plan_of(decoder, n_layers, [last - 1]))
        if note.startswith(rule.runtime)
    )
    if rule.period > 2:
        assert f"so layer {last - 1} of the pruned model as" in message
    assert f"{rule.field} of {decoder} by periods of {rule.period} layers" in message
    assert "; set select.period to keep, use another runtime" in message
    assert ("interlace gguf-pattern" in message) == bool(rule.gguf)
    assert "\n" not in message


@pytest.mark.parametrize("decoder", FIXED_PERIODS)
def test_whole_periods_and_trailing_layers_may_go(decoder: str) -> None:
    period = FIXED_PERIODS[decoder][0].period
    n_layers = 4 * period + 1
    for drop in ([*range(1, 1 + period)], [n_layers - 1], [*range(period), n_layers - 1]):
        assert misreadings(plan_of(decoder, n_layers, drop)) == []


def test_the_first_layer_of_the_wrong_kind_is_named() -> None:
    kinds = ("sliding_attention",) * 5 + ("full_attention",)
    fields = {"layer_types": kinds * 4}
    plan = make_plan([0, 1], [], 24).model_copy(
        update={"layer_kinds": LayerKinds(decoder="gemma3_text", fields=fields)}
    )
    llama_cpp, mlx = misreadings(plan)
    assert llama_cpp == (
        "llama.cpp would run this model wrongly: it takes layer_types of gemma3_text by periods of"
        " 6 layers, so layer 3 of the pruned model as sliding_attention, and it is full_attention;"
        " set select.period to keep, use another runtime, or write the kinds into its GGUF file:"
        " interlace gguf-pattern"
    )
    assert mlx.startswith("MLX would run this model wrongly: ")
    assert mlx.endswith("; set select.period to keep, use another runtime")


@pytest.mark.parametrize(("decoder", "n_layers"), [("gemma3_text", 62), ("gemma2", 46)])
def test_a_model_known_by_its_depth_is_named_whatever_goes(decoder: str, n_layers: int) -> None:
    period = FIXED_PERIODS[decoder][0].period
    (message,) = misreadings(plan_of(decoder, n_layers, [*range(period)]))
    assert message.startswith(f"llama.cpp would run this model wrongly: with {n_layers} layers of")
    assert f"the pruned model has {n_layers - period}; use another runtime" in message
    assert misreadings(plan_of(decoder, n_layers, [])) == []
    assert misreadings(plan_of(decoder, n_layers - period, [*range(period)])) == []


def test_a_model_with_one_kind_of_layers_is_never_named() -> None:
    assert misreadings(make_plan([1], [2])) == []


def test_the_rules_are_about_fields_that_a_decoder_has() -> None:
    for decoder, rule in RULES:
        assert rule.field in DECODERS[decoder].lists
    assert {decoder for decoder, _ in KNOWN_BY_DEPTH} <= set(DECODERS)


@pytest.mark.parametrize("name", family_models.TINY)
def test_kinds_are_those_that_export_lists(name: str) -> None:
    config = family_models.TINY[name].config
    n_layers = text_config(config)["num_hidden_layers"]
    kinds = layer_kinds(config, n_layers, "c")
    text = text_config(pruned_config(config, range(n_layers), "c"))
    listed = {field: text.get(field) for field in DECODERS[text_kind(config)].lists}
    mixed = {field: tuple(v) for field, v in listed.items() if v and len(set(v)) > 1}
    assert (kinds.fields if kinds else {}) == mixed


def text_kind(config: dict[str, Any]) -> str:
    from interlace.model.families import decoder_kind

    return decoder_kind(config, "c")


@pytest.mark.parametrize(
    ("name", "period"), [("gemma3", 3), ("qwen3_5", 3), ("gpt_oss", 2), ("smollm3", 3)]
)
def test_the_period_of_kinds_is_read_from_the_configuration(name: str, period: int) -> None:
    kinds = layer_kinds(family_models.TINY[name].config, 6, "c")
    assert kinds is not None and kinds.period == period


@pytest.mark.parametrize("name", ["lfm2", "smollm3, listed", "qwen2"])
def test_kinds_that_do_not_repeat_have_no_period(name: str) -> None:
    kinds = layer_kinds(family_models.TINY[name].config, 6, "c")
    assert kinds is not None and kinds.period is None


@pytest.mark.parametrize("name", ["llama", "qwen3_vl", "olmo2"])
def test_layers_of_one_kind_have_no_kinds(name: str) -> None:
    assert layer_kinds(family_models.TINY[name].config, 6, "c") is None
