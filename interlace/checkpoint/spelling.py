"""The spelling of transformers 4 beside that of 5: rotary positions, vision towers, tokenizers.

transformers 4 opens a configuration in the newer spelling alone without complaint, with its own
defaults for rotary positions. Other runtimes refuse one, or read defaults too. transformers 5 reads
both spellings; where both stand, `rope_scaling` counts. What a source spells itself stays as it is.
"""

from __future__ import annotations

from typing import Any

from interlace.model.families import Config, text_config

OLDER_TOWERS = ("glm4v", "glm4v_moe", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
SCALED = ("gpt_oss",)  # by YaRN where transformers 4 is told nothing
LONGROPE = ("short_factor", "long_factor")  # with `type`, all that transformers 4 allows in Phi-3


def add_older_spelling(config: Config, kind: str) -> None:
    """Add the older names to a configuration, in place.

    Args:
        config: the contents of config.json.
        kind: `model_type` of its decoder.
    """
    text, vision = text_config(config), config.get("vision_config") or {}
    _add_missing(text, _older_rope(text.get("rope_parameters"), kind))
    if vision.get("model_type") == "pixtral":  # of the towers, only this one named a base
        theta = (vision.get("rope_parameters") or {}).get("rope_theta")
        _add_missing(vision, {"rope_theta": theta})
    family = config["model_type"]
    if family in OLDER_TOWERS and vision.get("model_type") == f"{family}_vision":
        vision["model_type"] = family


def _add_missing(section: Config, fields: Config) -> None:
    for name, value in fields.items():
        if value is not None and section.get(name) is None:
            section[name] = value


def _older_rope(rope: Any, kind: str) -> Config:
    """Return rotary positions in the fields of transformers 4; none where these cannot say them.

    By kind of layer, the older fields are about the layers with full attention; Gemma 3 names the
    base of the others.
    """
    if not isinstance(rope, dict):
        return {}
    full = rope.get("full_attention", {} if _is_nested(rope) else rope)
    older = {name: full[name] for name in ("rope_theta", "partial_rotary_factor") if name in full}
    if kind == "gemma3_text" and _is_nested(rope):
        older["rope_local_base_freq"] = (rope.get("sliding_attention") or {}).get("rope_theta")
    rope_type = full.get("rope_type") or full.get("type") or "default"
    scaled = full.keys() - older.keys() - {"rope_type", "type"}
    if rope_type == "default" and not scaled and kind not in SCALED:
        return older
    rest = {name: value for name, value in full.items() if name != "rope_theta"}
    if kind == "phi3":
        rest = {name: rest[name] for name in LONGROPE if name in rest}
    else:
        rest["rope_type"] = rope_type
    return older | {"rope_scaling": rest | {"type": rope_type}}


def _is_nested(rope: Config) -> bool:
    return any(isinstance(value, dict) for value in rope.values())


def older_tokenizer(fields: Config) -> Config:
    """Return tokenizer_config.json as both versions read it; the same object if they do already.

    transformers 4 has no class `TokenizersBackend`, and no list of `extra_special_tokens`.
    """
    changed = dict(fields)
    if fields.get("tokenizer_class") == "TokenizersBackend":
        changed["tokenizer_class"] = "PreTrainedTokenizerFast"
    extra = fields.get("extra_special_tokens")
    if isinstance(extra, list) and not fields.get("additional_special_tokens"):
        changed["additional_special_tokens"] = changed.pop("extra_special_tokens")
    return fields if changed == fields else changed
