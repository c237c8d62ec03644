"""Configurations of fewer layers, and layers taken out in memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from interlace.errors import InputError
from interlace.families import (
    architecture,
    bypass,
    decoder_layers,
    decoder_prefix,
    pruned_config,
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


def test_the_layer_count_is_that_of_the_kept_layers() -> None:
    assert pruned_config(qwen3_vl(), [0, 1, 2, 5], "c")["text_config"]["num_hidden_layers"] == 4


def test_the_given_configuration_is_left_as_it_is() -> None:
    config = qwen2_5_vl()
    before = copy.deepcopy(config)
    pruned_config(config, [0, 5], "c")
    assert config == before


def test_nothing_else_of_qwen3_vl_changes() -> None:
    pruned = pruned_config(qwen3_vl(vocab_size=100), [0, 1, 2, 5], "c")
    assert pruned["vision_config"] == qwen3_vl()["vision_config"]
    assert pruned["text_config"]["vocab_size"] == 100
    assert pruned["text_config"]["eos_token_id"] == [2, 0]


def test_layer_types_are_those_of_the_kept_layers() -> None:
    text = pruned_config(qwen2_5_vl(), [0, 3, 4], "c")["text_config"]
    assert text["layer_types"] == ["full_attention", "full_attention", "sliding_attention"]


@pytest.mark.parametrize(("keep", "left"), [([0, 3, 4], 2), ([4, 5], 0), ([0, 1, 2, 3], 4)])
def test_max_window_layers_counts_the_kept_leading_layers(keep: list[int], left: int) -> None:
    assert pruned_config(qwen2_5_vl(), keep, "c")["text_config"]["max_window_layers"] == left


def test_a_flat_configuration_is_pruned_too() -> None:
    nested = qwen2_5_vl()
    flat = {k: v for k, v in nested.items() if k != "text_config"} | nested["text_config"]
    pruned = pruned_config(flat, [0, 5], "c")
    assert (pruned["num_hidden_layers"], len(pruned["layer_types"])) == (2, 2)


def test_an_unknown_list_as_long_as_the_decoder_is_refused() -> None:
    with pytest.raises(InputError, match=r"^c: layer_scales .*FAMILIES\['qwen3_vl'\]"):
        pruned_config(qwen3_vl(layer_scales=[1.0] * 6), [0, 1], "c")


def test_an_unknown_list_of_layer_indices_is_refused() -> None:
    with pytest.raises(InputError, match=r"^c: mlp_only_layers "):
        pruned_config(qwen3_vl(mlp_only_layers=[3, 5]), [0, 1], "c")


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


def test_an_architecture_counts_the_deepstack_layers() -> None:
    arch = architecture(qwen3_vl(), "c")
    assert (arch.model_type, arch.n_layers, arch.deepstack_layers) == ("qwen3_vl", 6, 3)
    assert architecture(qwen2_5_vl(), "c").deepstack_layers == 0


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
    from interlace.sources import open_model

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


def test_text_config_of_a_flat_configuration_is_all_of_it() -> None:
    flat = {"model_type": "qwen2_vl", "num_hidden_layers": 2}
    assert text_config(flat) is flat
