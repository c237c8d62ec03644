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
import torch

from interlace.checkpoint.config import pruned_config
from interlace.errors import InputError
from interlace.model.bypass import bypass
from interlace.model.decoder import decoder_layers, decoder_prefix
from interlace.model.families import (
    FAMILIES,
    REFUSED,
    Architecture,
    architecture,
    text_config,
    vision_token_ids,
)


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


def moe(**text: Any) -> dict[str, Any]:
    return qwen3_vl(**text) | {"model_type": "qwen3_vl_moe"}


def glm(**text: Any) -> dict[str, Any]:
    layers = {"num_hidden_layers": 6, "tie_word_embeddings": False}
    return {"model_type": "glm4v_moe", "text_config": layers | text, "vision_config": {}}


def granite(*targets: int, layers: int = 6) -> dict[str, Any]:
    return {
        "model_type": "granite4_vision",
        "tie_word_embeddings": False,
        "deepstack_layer_map": [[-2, targets[0]], [-1, targets[1]]],
        "spatial_target_layers": list(targets[2:]),
        "text_config": {"num_hidden_layers": layers},
    }


def pruned_text(config: dict[str, Any], keep: list[int]) -> dict[str, Any]:
    return text_config(pruned_config(config, keep, "c"))


def test_only_per_layer_fields_change() -> None:
    config = qwen3_vl(vocab_size=100)
    original = copy.deepcopy(config)
    pruned = pruned_config(config, [0, 1, 2, 5], "c")
    assert config == original
    assert pruned["vision_config"] == config["vision_config"]
    assert pruned["text_config"]["num_hidden_layers"] == 4
    assert pruned["text_config"]["vocab_size"] == 100
    assert pruned["text_config"]["eos_token_id"] == [2, 0]


def test_layer_types_are_those_of_the_kept_layers() -> None:
    text = pruned_config(qwen2_5_vl(), [0, 3, 4], "c")["text_config"]
    assert text["layer_types"] == ["full_attention", "full_attention", "sliding_attention"]


@pytest.mark.parametrize(
    ("config", "field"),
    [(qwen2_5_vl(), "max_window_layers"), (glm(first_k_dense_replace=4), "first_k_dense_replace")],
)
@pytest.mark.parametrize(("keep", "count"), [([0, 3, 4], 2), ([4, 5], 0), ([0, 1, 2, 3], 4)])
def test_leading_layers_are_counted_among_the_kept(
    config: dict[str, Any], field: str, keep: list[int], count: int
) -> None:
    assert pruned_text(config, keep)[field] == count


def test_a_flat_configuration_is_pruned_too() -> None:
    nested = qwen2_5_vl()
    flat = {k: v for k, v in nested.items() if k != "text_config"} | nested["text_config"]
    pruned = pruned_config(flat, [0, 5], "c")
    assert (pruned["num_hidden_layers"], len(pruned["layer_types"])) == (2, 2)


@pytest.mark.parametrize(
    ("field", "value"), [("layer_scales", [1.0] * 6), ("mlp_only_layers", [3, 5])]
)
def test_an_unknown_list_over_layers_is_refused(field: str, value: list[Any]) -> None:
    with pytest.raises(InputError, match=rf"^c: {field} .*DECODERS\['qwen3_vl_text'\]"):
        pruned_config(qwen3_vl(**{field: value}), [0, 1], "c")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_kv_shared_layers", 2),
        ("hidden_size_per_layer_input", 256),
        ("per_layer_config", {"0": {"sliding_window": 4}}),
        ("moe_layer_freq", 2),
        ("moe_layer_freq", [0, 1, 1, 1, 1, 1]),
    ],
)
def test_what_is_packed_or_shared_between_layers_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^c: {name} is about single layers"):
        pruned_config(qwen3_vl(**{name: value}), [0, 1], "c")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_kv_shared_layers", 0),
        ("hidden_size_per_layer_input", 0),
        ("per_layer_config", {}),
        ("moe_layer_freq", 1),
        ("eos_token_id", [1, 2]),
        ("mrope_section", [24, 20, 20]),
    ],
)
def test_what_is_not_used_or_not_per_layer_stays(name: str, value: Any) -> None:
    assert pruned_text(qwen3_vl(**{name: value}), [0, 1])[name] == value


def test_layers_without_experts_are_renumbered() -> None:
    text = pruned_text(moe(mlp_only_layers=[0, 1, 4]), [1, 2, 4, 5])
    assert text["mlp_only_layers"] == [0, 2]


def test_a_sparse_layer_stays_sparse_whatever_number_it_gets() -> None:
    text = pruned_text(moe(mlp_only_layers=[3], decoder_sparse_step=2), [1, 2, 3, 4, 5])
    assert text["decoder_sparse_step"] == 1
    assert text["mlp_only_layers"] == [1, 2, 3]  # of layers 1 to 5, 1 and 5 have experts


def test_layers_behind_the_decoder_are_no_longer_announced() -> None:
    assert pruned_text(glm(num_nextn_predict_layers=1), [0, 1])["num_nextn_predict_layers"] == 0


@pytest.mark.parametrize(
    ("family", "kinds"),
    [
        ("gemma3", {"sliding_attention", "full_attention"}),
        ("cohere2_vision", {"sliding_attention", "full_attention"}),
        ("qwen3_5", {"linear_attention", "full_attention"}),
        ("lfm2_vl", {"conv", "full_attention"}),
        ("qwen2_vl", {"sliding_attention", "full_attention"}),
    ],
)
def test_kinds_of_layers_are_written_out_where_a_pattern_made_them(
    family: str, kinds: set[str]
) -> None:
    config = family_models.TINY[family].config
    assert "layer_types" not in text_config(config)
    whole = pruned_text(config, list(range(6)))["layer_types"]
    assert set(whole) == kinds
    assert pruned_text(config, [1, 2, 4])["layer_types"] == [whole[i] for i in (1, 2, 4)]


@pytest.mark.parametrize(
    ("family", "pattern"),
    [
        ("gemma3", "sliding_window_pattern"),
        ("cohere2_vision", "sliding_window_pattern"),
        ("qwen3_5", "full_attention_interval"),
    ],
)
def test_a_pattern_is_removed_once_its_kinds_are_listed(family: str, pattern: str) -> None:
    config = family_models.TINY[family].config
    assert pattern in text_config(config)
    assert pattern not in pruned_text(config, [1, 2, 4])


def test_numbers_of_layers_with_attention_go_with_their_kinds() -> None:
    text = pruned_text(family_models.TINY["lfm2_vl"].config, [0, 2, 3, 4])
    assert text["full_attn_idxs"] == [2, 3]
    assert text["layer_types"] == ["conv", "conv", "full_attention", "full_attention"]


def test_places_where_visual_features_enter_move_to_the_next_kept_layer() -> None:
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


def test_an_unknown_family_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match=r"^c: model_type 'bert' .*supported: aya_vision, .*"):
        architecture({"model_type": "bert"}, "c")


def test_an_unknown_decoder_of_a_known_family_is_refused() -> None:
    config = {"model_type": "llava", "text_config": {"model_type": "opt"}}
    with pytest.raises(InputError, match=r"^c: text_config.model_type 'opt' .*: llama, mistral"):
        architecture(config, "c")


def test_a_layer_count_left_to_the_default_is_read_through_transformers() -> None:
    config = {"model_type": "llava", "text_config": {"model_type": "llama"}}
    assert architecture(config, "c").n_layers == 32


def test_a_configuration_that_transformers_does_not_accept_is_refused() -> None:
    config = {"model_type": "gemma3", "text_config": {"hidden_size": "wide"}}
    with pytest.raises(InputError, match=r"^c: transformers does not accept .*hidden_size"):
        architecture(config, "c")


@pytest.mark.parametrize("name", family_models.TINY)
def test_every_tiny_model_is_supported(name: str) -> None:
    config = family_models.TINY[name].config
    arch = architecture(config, "c")
    assert arch.model_type == config["model_type"]
    assert arch.n_layers == text_config(config)["num_hidden_layers"]


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
    assert set(re.findall(r"^\|[^|]+\| `(\w+)` \|", rows, re.MULTILINE)) == set(FAMILIES)
    assert set(re.findall(r"^- `(\w+)`", text, re.MULTILINE)) == set(REFUSED)


def test_flags_that_differ_are_read_as_transformers_reads_them() -> None:
    """LLaVA ties where either flag says so, Qwen3-VL where the top one does."""
    for model_type, tied in (("llava", True), ("qwen3_vl", False)):
        config = {"model_type": model_type, "tie_word_embeddings": False}
        config["text_config"] = {"num_hidden_layers": 6, "tie_word_embeddings": True}
        pruned = pruned_config(config, [0, 1], "c")
        assert pruned["tie_word_embeddings"] is tied
        assert pruned["text_config"]["tie_word_embeddings"] is tied


def test_a_flag_left_to_the_default_is_written_out() -> None:
    config = {"model_type": "gemma3", "text_config": {"num_hidden_layers": 6}}
    pruned = pruned_config(config, [0, 5], "c")
    assert pruned["tie_word_embeddings"] is pruned["text_config"]["tie_word_embeddings"] is True


@pytest.mark.parametrize("tied", [True, False])
def test_both_tie_flags_are_written(tied: bool) -> None:
    for config in (
        qwen3_vl() | {"tie_word_embeddings": tied},
        {k: v for k, v in qwen3_vl(tie_word_embeddings=tied).items() if k != "tie_word_embeddings"},
        qwen3_vl(tie_word_embeddings=not tied) | {"tie_word_embeddings": tied},
    ):
        pruned = pruned_config(config, [0], "c")
        assert pruned["tie_word_embeddings"] is tied
        assert pruned["text_config"]["tie_word_embeddings"] is tied


def test_rope_scaling_never_stands_beside_rope_parameters() -> None:
    rope = {"rope_type": "default"}
    text = pruned_config(qwen3_vl(rope_parameters=rope, rope_scaling=rope), [0], "c")["text_config"]
    assert text["rope_parameters"] == rope
    assert "rope_scaling" not in text


@pytest.mark.parametrize(
    ("config", "deepstack_layers"),
    [(qwen3_vl(), 3), (qwen2_5_vl(), 0), (granite(0, 2, 4), 4)],
)
def test_deepstack_layers_end_with_the_last_visual_features(
    config: dict[str, Any], deepstack_layers: int
) -> None:
    expected = Architecture(config["model_type"], 6, deepstack_layers)
    assert architecture(config, "c") == expected


@pytest.mark.parametrize("layers", [None, 0, "36"])
def test_a_configuration_without_a_layer_count_is_refused(layers: Any) -> None:
    with pytest.raises(InputError, match=r"^c: num_hidden_layers = "):
        architecture(qwen3_vl(num_hidden_layers=layers), "c")


def test_the_decoder_s_name_is_taken_from_the_model(dense: Any) -> None:
    prefix = decoder_prefix(dense)
    assert prefix == "model.language_model.layers"
    assert dense.get_submodule(prefix) is decoder_layers(dense)


def test_vision_tokens_are_those_of_images_and_videos(dense: Any) -> None:
    config = dense.config
    assert vision_token_ids(config) == sorted([config.image_token_id, config.video_token_id])


def test_bypassing_renumbers_every_module_that_has_a_number(dense_dir: Path) -> None:
    from interlace.model.open import open_model

    model = open_model(dense_dir)
    weight = decoder_layers(model)[4].mlp.down_proj.weight
    bypass(model, [1, 3])
    numbers = [
        {m.layer_idx for m in layer.modules() if hasattr(m, "layer_idx")}
        for layer in decoder_layers(model)
    ]
    assert numbers == [{0}, {1}, {2}, {3}]
    assert model.config.get_text_config(decoder=True).num_hidden_layers == 4
    assert torch.equal(decoder_layers(model)[2].mlp.down_proj.weight, weight)
