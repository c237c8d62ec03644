"""A checkpoint in the spelling of transformers 5 gets that of transformers 4 beside it."""

from __future__ import annotations

import copy
import json
from typing import Any

import family_models
import pytest
import torch
from transformers import CONFIG_MAPPING

from interlace.checkpoint.spelling import OLDER_TOWERS, add_older_spelling, older_tokenizer
from interlace.model.families import decoder_kind

Config = dict[str, Any]
WITHOUT_LAYERS = {"rope_type": "default", "rope_theta": 5.0}


def saved(name: str) -> Config:
    """The configuration of a tiny model as transformers 5 saves it."""
    config = family_models.TINY[name].config
    read = CONFIG_MAPPING[config["model_type"]].from_dict(copy.deepcopy(config))
    return json.loads(read.to_json_string(use_diff=False))


def both_spellings(config: Config) -> Config:
    """The configuration with both spellings."""
    both = copy.deepcopy(config)
    add_older_spelling(both, decoder_kind(config, "c"))
    return both


def text_of(config: Config) -> Config:
    return config.get("text_config", config)


def as_opened(config: Config) -> Config:
    """All values that transformers reads; what rotary positions say is not read a second time."""
    read = CONFIG_MAPPING[config["model_type"]].from_dict(copy.deepcopy(config)).to_dict()

    def plain(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        said_twice = {"type"} if value.get("type") == value.get("rope_type") else set()
        if "partial_rotary_factor" in (value.get("rope_parameters") or {}):
            said_twice.add("partial_rotary_factor")  # transformers 5.19 keeps it as an attribute
        return {k: plain(v) for k, v in value.items() if k not in said_twice}

    return plain(read)


def older_reading(text: Config) -> Config:
    """The rotary positions as transformers 4 reads them, in the fields of transformers 5."""
    default = "yarn" if text["model_type"] == "gpt_oss" else "default"
    scaling = dict(text.get("rope_scaling") or {"rope_type": default})
    scaling["rope_type"] = scaling.get("rope_type", scaling.pop("type", None))
    scaling.pop("type", None)
    if scaling["rope_type"] == "longrope":
        length = text["original_max_position_embeddings"]
        scaling["original_max_position_embeddings"] = length
    if "partial_rotary_factor" in text:
        scaling["partial_rotary_factor"] = text["partial_rotary_factor"]
    full = scaling | {"rope_theta": text["rope_theta"]}
    if text["model_type"] == "gemma3_text":
        local = {"rope_type": "default", "rope_theta": text["rope_local_base_freq"]}
        return {"full_attention": full, "sliding_attention": local}
    if text["model_type"] == "olmo3":  # one base; the other layers are never scaled
        local = {"rope_type": "default", "rope_theta": text["rope_theta"]}
        return {"full_attention": full, "sliding_attention": local}
    return full


@pytest.mark.parametrize("name", family_models.TINY)
def test_both_spellings_open_as_the_newer_one_alone(name: str) -> None:
    newer = saved(name)
    both = both_spellings(newer)
    assert "rope_theta" not in text_of(newer) and "rope_theta" in text_of(both)
    assert as_opened(both) == as_opened(newer)


@pytest.mark.slow
@pytest.mark.parametrize("name", family_models.TINY)
def test_both_spellings_give_the_same_logits_to_the_bit(name: str) -> None:
    newer = saved(name)
    logits = [logits_of(name, config) for config in (newer, both_spellings(newer))]
    assert torch.equal(*logits)


@torch.inference_mode()
def logits_of(name: str, config: Config) -> torch.Tensor:
    torch.manual_seed(0)
    model = family_models.build(config).eval()
    return model(**family_models.inputs(name)).logits


@pytest.mark.parametrize("name", family_models.TINY)
def test_an_older_reader_finds_the_same_rotary_positions(name: str) -> None:
    newer = saved(name)
    factor = text_of(newer).get("partial_rotary_factor")
    if factor not in (None, text_of(newer)["rope_parameters"].get("partial_rotary_factor")):
        pytest.skip("transformers 5.19 writes two factors into Qwen3.5's file")
    both = both_spellings(newer)
    assert older_reading(text_of(both)) == text_of(as_opened(both))["rope_parameters"]


@pytest.mark.parametrize("name", family_models.WITH_IMAGES)
def test_a_vision_tower_has_its_older_name_where_it_had_another(name: str) -> None:
    newer = saved(name)
    family, tower = newer["model_type"], newer["vision_config"]["model_type"]
    older = family if family in OLDER_TOWERS else tower
    assert both_spellings(newer)["vision_config"]["model_type"] == older
    assert (tower == f"{older}_vision") == (family in OLDER_TOWERS)


def test_the_base_of_pixtral_s_tower_is_written_in_the_older_field_too() -> None:
    vision = both_spellings(saved("llava, pixtral"))["vision_config"]
    assert vision["rope_theta"] == vision["rope_parameters"]["rope_theta"]


@pytest.mark.parametrize(
    "older",
    [
        {"rope_theta": 7.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_theta": 7.0, "rope_scaling": {"type": "mrope", "mrope_section": [4, 2, 2]}},
        {"rope_theta": 7.0, "partial_rotary_factor": 0.5},
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    ],
)
@pytest.mark.parametrize("newer", [{}, {"rope_parameters": WITHOUT_LAYERS}])
def test_what_the_source_spells_in_the_older_way_stays(older: Config, newer: Config) -> None:
    config = {"model_type": "llama", "num_hidden_layers": 2, "tie_word_embeddings": False}
    text = both_spellings(config | copy.deepcopy(older | newer))
    assert {name: text[name] for name in older} == older
    assert {name: text[name] for name in newer} == newer
    assert ("rope_theta" in text) == ("rope_theta" in older or bool(newer))


def test_a_source_without_rotary_positions_gets_none() -> None:
    config = {"model_type": "llama", "num_hidden_layers": 2, "tie_word_embeddings": False}
    assert both_spellings(config) == config


@pytest.mark.parametrize(
    ("newer", "both"),
    [
        ({"tokenizer_class": "TokenizersBackend"}, {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ({"extra_special_tokens": ["a"]}, {"additional_special_tokens": ["a"]}),
        ({"extra_special_tokens": []}, {"additional_special_tokens": []}),
    ],
)
def test_a_tokenizer_s_fields_are_written_as_both_versions_read_them(
    newer: Config, both: Config
) -> None:
    assert older_tokenizer(newer | {"eos_token": "e"}) == both | {"eos_token": "e"}


@pytest.mark.parametrize(
    "fields", [{"tokenizer_class": "Qwen2Tokenizer"}, {"extra_special_tokens": {"image": "<i>"}}]
)
def test_a_tokenizer_that_both_versions_read_is_left_alone(fields: Config) -> None:
    assert older_tokenizer(fields) is fields
