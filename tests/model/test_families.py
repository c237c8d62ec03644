"""Configurations of fewer layers, and layers taken out in memory."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import family_models
import pytest

from interlace.checkpoint.config import pruned_config
from interlace.errors import InputError
from interlace.model.decoder import decoder_layers, decoder_prefix
from interlace.model.families import Architecture, architecture, text_config, vision_token_ids
from interlace.model.rules import FAMILIES, REFUSED


def qwen3_vl(**text: Any) -> dict[str, Any]:
    return {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": True,
        "text_config": {"num_hidden_layers": 6, "eos_token_id": [2, 0]} | text,
        "vision_config": {"deepstack_visual_indexes": [5, 11, 17]},
    }


def qwen2_5_vl(**text: Any) -> dict[str, Any]:
    kinds = ["full_attention"] * 4 + ["sliding_attention"] * 2
    layers = {"num_hidden_layers": 6, "layer_types": kinds, "max_window_layers": 4}
    return {"model_type": "qwen2_5_vl", "text_config": layers | text, "vision_config": {}}


def granite(*targets: int, layers: int = 6) -> dict[str, Any]:
    return {
        "model_type": "granite4_vision",
        "tie_word_embeddings": False,
        "deepstack_layer_map": [[-2, targets[0]], [-1, targets[1]]],
        "spatial_target_layers": list(targets[2:]),
        "text_config": {"num_hidden_layers": layers},
    }


GLM, LLAVA = {"model_type": "glm4v_moe"}, {"model_type": "llava"}


def pruned_text(config: dict[str, Any], keep: list[int]) -> dict[str, Any]:
    return text_config(pruned_config(config, keep, "c"))


def test_only_per_layer_fields_change() -> None:
    config = qwen3_vl(vocab_size=100)
    original = copy.deepcopy(config)
    expected = copy.deepcopy(config)
    expected["text_config"] |= {"num_hidden_layers": 4, "tie_word_embeddings": True}
    assert pruned_config(config, [0, 1, 2, 5], "c") == expected
    assert config == original


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (qwen2_5_vl(), "max_window_layers"),
        (qwen3_vl(first_k_dense_replace=4) | GLM, "first_k_dense_replace"),
    ],
)
@pytest.mark.parametrize(("keep", "count"), [([0, 3, 4], 2), ([4, 5], 0), ([0, 1, 2, 3], 4)])
def test_leading_layers_are_counted_among_the_kept(
    config: dict[str, Any], field: str, keep: list[int], count: int
) -> None:
    assert pruned_text(config, keep)[field] == count


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layer_scales", [1.0] * 6),
        ("mlp_only_layers", [3, 5]),
        ("num_kv_shared_layers", 2),
        ("hidden_size_per_layer_input", 256),
        ("per_layer_config", {"0": {"sliding_window": 4}}),
        ("moe_layer_freq", 2),
        ("moe_layer_freq", [0, 1, 1, 1, 1, 1]),
    ],
)
def test_a_field_about_single_layers_without_a_rule_is_refused(field: str, value: Any) -> None:
    message = rf"^c: {field} is about single layers.*DECODERS\['qwen3_vl_text'\]"
    with pytest.raises(InputError, match=message):
        pruned_config(qwen3_vl(**{field: value}), [0, 1], "c")


def test_a_text_only_model_s_unknown_field_is_refused() -> None:
    config = {"model_type": "llama", "num_hidden_layers": 6, "layer_scales": [1.0] * 6}
    with pytest.raises(InputError, match=r"^c: layer_scales is about .*DECODERS\['llama'\]"):
        pruned_config(config, [0, 1], "c")


def test_a_list_inside_of_rope_scaling_is_not_about_layers() -> None:
    scaling = {"type": "longrope", "short_factor": [1.0] * 6, "long_factor": [2.0] * 6}
    config = {"model_type": "phi3", "num_hidden_layers": 6, "rope_scaling": scaling}
    pruned = pruned_config(config | {"tie_word_embeddings": False}, [0, 5], "c")
    assert pruned["rope_scaling"] == scaling


@pytest.mark.parametrize("listed", [{}, {"no_rope_layers": [1, 1, 0, 1, 1, 0]}])
def test_layers_without_rotary_positions_keep_their_kind(listed: dict[str, Any]) -> None:
    config = family_models.TINY["smollm3"].config | listed  # every third layer has none
    pruned = pruned_config(config, [1, 2, 5], "c")
    assert pruned["no_rope_layers"] == [1, 0, 0]
    assert pruned["layer_types"] == ["full_attention", "sliding_attention", "sliding_attention"]
    assert "no_rope_layer_interval" not in pruned


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_kv_shared_layers", 0),
        ("hidden_size_per_layer_input", 0),
        ("per_layer_config", {}),
        ("moe_layer_freq", 1),
        ("eos_token_id", [1, 2]),
        ("mrope_section", [24, 20, 20]),
    ],
)
def test_an_unused_field_or_one_not_per_layer_stays(field: str, value: Any) -> None:
    assert pruned_text(qwen3_vl(**{field: value}), [0, 1])[field] == value


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("gemma3", "sliding_attention"),
        ("cohere2_vision", "sliding_attention"),
        ("qwen3_5", "linear_attention"),
        ("qwen2_vl", "sliding_attention"),
    ],
)
def test_kinds_of_layers_are_listed_in_place_of_a_pattern(family: str, kind: str) -> None:
    config = family_models.TINY[family].config
    kinds = pruned_text(config, list(range(6)))["layer_types"]
    assert set(kinds) == {kind, "full_attention"}
    pruned = pruned_text(config, [1, 2, 4])
    assert pruned["layer_types"] == [kinds[i] for i in (1, 2, 4)]
    assert not pruned.keys() & {"sliding_window_pattern", "full_attention_interval"}


@pytest.mark.parametrize("keep", [[0, 1, 2, 3, 4, 5], [1, 2], [0, 3, 5]])
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_vllm_refuses_a_pruned_model_only_if_it_refuses_the_dense_one(
    family: str, keep: list[int]
) -> None:
    """It opens mixed kinds where `max_window_layers` says that no layer slides, and no others."""
    config = copy.deepcopy(family_models.TINY[family].config)
    mixed = ["full_attention", "sliding_attention", "full_attention"] * 2
    config["text_config"] |= {"layer_types": mixed, "max_window_layers": 6}
    assert pruned_text(config, keep)["max_window_layers"] == len(keep)
    config["text_config"]["max_window_layers"] = 3
    pruned = pruned_text(config, [0, 2, 3, 5])
    assert (pruned["max_window_layers"], set(pruned["layer_types"])) == (2, {"full_attention"})


@pytest.mark.parametrize("keep", [[0, 1, 2, 3, 4], [0, 1, 5], [0, 4, 5], [3, 4, 5]])
def test_a_pattern_that_the_kept_layers_follow_stays(keep: list[int]) -> None:
    for family, name in (
        ("gemma3", "sliding_window_pattern"),
        ("smollm3", "no_rope_layer_interval"),
    ):
        assert pruned_text(family_models.TINY[family].config, keep)[name] == 3


def test_numbers_of_layers_with_attention_go_with_their_kinds() -> None:
    text = pruned_text(family_models.TINY["lfm2_vl"].config, [0, 2, 3, 4])
    assert text["full_attn_idxs"] == [2, 3]
    assert text["layer_types"] == ["conv", "conv", "full_attention", "full_attention"]


def test_entries_of_visual_features_move_to_the_next_kept_layer() -> None:
    pruned = pruned_config(granite(0, 2, 4, layers=8), [1, 2, 5, 6], "c")
    assert pruned["deepstack_layer_map"] == [[-2, 0], [-1, 1]]
    assert pruned["spatial_target_layers"] == [2]


@pytest.mark.parametrize(("keep", "layer"), [([0, 1, 2], 3), ([0, 1, 4], 3), ([2, 4], 2)])
def test_visual_features_need_a_layer_of_their_own(keep: list[int], layer: int) -> None:
    with pytest.raises(InputError, match=rf"^c: .*features enter before layer {layer}, "):
        pruned_config(granite(1, 2, 3, 4), keep, "c")


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_family_that_cannot_be_pruned_is_refused_with_the_reason(model_type: str) -> None:
    reason = re.escape(REFUSED[model_type])
    with pytest.raises(InputError, match=rf"^c: model_type '{model_type}' .*: it {reason};"):
        architecture({"model_type": model_type}, "c")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, "model_type 'bert' .*supported: aria, aya_vision, "),
        (
            {"model_type": "llava", "text_config": {"model_type": "opt"}},
            "text_config.model_type 'opt' .*: llama, mistral",
        ),
        (
            {"model_type": "gemma3", "text_config": {"hidden_size": "wide"}},
            "transformers does not accept .*hidden_size",
        ),
        (qwen3_vl(num_hidden_layers=None), "num_hidden_layers = None"),
        (qwen3_vl(num_hidden_layers=0), "num_hidden_layers = 0"),
        ({"model_type": "llama"}, "num_hidden_layers = None"),
        (qwen3_vl(num_hidden_layers="36"), "num_hidden_layers = '36'"),
    ],
)
def test_an_unknown_or_unreadable_configuration_is_refused(
    config: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"^c: {message}"):
        architecture(config, "c")


def test_a_layer_count_left_to_the_default_is_read_through_transformers() -> None:
    assert architecture({"model_type": "llava", "text_config": {}}, "c").n_layers == 32


def test_a_complete_configuration_is_judged_without_torch() -> None:
    code = (
        "import json, sys; from interlace.model.families import architecture;"
        "from interlace.checkpoint.config import pruned_config;"
        "config = json.loads(sys.argv[1]); pruned_config(config, [0, 5], 'c');"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    config = json.dumps(qwen2_5_vl(tie_word_embeddings=True))
    assert subprocess.run([sys.executable, "-c", code, config], check=False).returncode == 0


def test_the_document_names_every_family() -> None:
    text = (Path(__file__).parents[2] / "docs/families.md").read_text()
    rows = text.partition("|---|")[2]
    types = set(re.findall(r"^\|[^|]+\| `(\w+)` \|", rows, re.MULTILINE))
    assert types - {"model_type"} == set(FAMILIES)
    assert set(re.findall(r"^- `([\w.-]+)` ", text, re.MULTILINE)) == set(REFUSED)


@pytest.mark.parametrize(
    ("model_type", "text", "reason"),
    [
        ("gemma4", {"hidden_size_per_layer_input": 256}, "one tensor packs embeddings"),
        ("gemma4", {"hidden_size_per_layer_input": None}, "one tensor packs embeddings"),  # default
        ("gemma4", {"num_kv_shared_layers": 2}, "its last layers use the keys and values"),
        ("gemma4_unified", {"num_kv_shared_layers": 2}, "its last layers use the keys and values"),
    ],
)
def test_a_gemma_4_whose_layers_share_is_refused_with_the_reason(
    model_type: str, text: dict[str, Any], reason: str
) -> None:
    config = family_models.ALL[model_type].config
    section = config["text_config"] | text
    section = {name: value for name, value in section.items() if value is not None}
    name = next(iter(text))
    message = rf"^c: model_type '{model_type}' with {name} = \d+ is not supported: {reason}.* = 0$"
    with pytest.raises(InputError, match=message):
        pruned_config(config | {"text_config": section}, [0, 5], "c")


def test_a_last_layer_that_transformers_would_change_is_refused() -> None:
    config = family_models.ALL["gemma4"].config
    with pytest.raises(InputError, match=r"^c: layer_types: the last kept layer, 3, is of kind sl"):
        pruned_config(config, [0, 1, 2, 3], "c")


@pytest.mark.parametrize("key", ["5", "05", 5])
def test_settings_of_single_layers_go_with_their_layers(key: Any) -> None:
    config = copy.deepcopy(family_models.ALL["gemma4"].config)
    config["text_config"]["per_layer_config"] = {"2": {"head_dim": 8}, key: {"head_dim": 4}}
    text = pruned_text(config, [0, 1, 4, 5])
    assert text["per_layer_config"] == {"3": {"head_dim": 4}}


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        (qwen3_vl() | {"tie_word_embeddings": False}, False),
        (qwen3_vl(), True),
        (qwen2_5_vl(tie_word_embeddings=False), False),
        (qwen2_5_vl(tie_word_embeddings=True), True),
        # flags that differ: LLaVA ties where either says so, Qwen3-VL where the top one does
        (qwen3_vl(tie_word_embeddings=True) | LLAVA | {"tie_word_embeddings": False}, True),
        (qwen3_vl(tie_word_embeddings=True) | {"tie_word_embeddings": False}, False),
        (qwen3_vl(tie_word_embeddings=False), True),
        # left to the default
        ({"model_type": "gemma3", "text_config": {"num_hidden_layers": 6}}, True),
    ],
)
def test_both_tie_flags_are_written_as_transformers_reads_them(
    config: dict[str, Any], tied: bool
) -> None:
    pruned = pruned_config(config, [0, 5], "c")
    assert pruned["tie_word_embeddings"] is tied
    assert pruned["text_config"]["tie_word_embeddings"] is tied


@pytest.mark.parametrize(
    ("config", "deepstack_layers"), [(qwen3_vl(), 3), (qwen2_5_vl(), 0), (granite(0, 2, 4), 4)]
)
def test_deepstack_layers_end_with_the_last_visual_features(
    config: dict[str, Any], deepstack_layers: int
) -> None:
    expected = Architecture(config["model_type"], 6, deepstack_layers)
    assert architecture(config, "c") == expected


def test_the_decoder_s_name_is_taken_from_the_model(dense: Any) -> None:
    prefix = decoder_prefix(dense)
    assert prefix == "model.language_model.layers"
    assert dense.get_submodule(prefix) is decoder_layers(dense)


def test_vision_tokens_are_those_of_images_and_videos(dense: Any) -> None:
    config = dense.config
    assert vision_token_ids(config) == sorted([config.image_token_id, config.video_token_id])
