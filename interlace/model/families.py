"""The supported model families, and the per-layer fields of their configurations.

A configuration is handled as plain JSON, so that `pin` can check a model without loading it. Fields
that the JSON leaves to transformers' defaults are read through transformers, and written out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from interlace.errors import InputError

Config = dict[str, Any]


@dataclass(frozen=True)
class Decoder:
    """The per-layer fields of a kind of decoder, beside `num_hidden_layers`.

    Attributes:
        lists: fields with one entry per layer; entries of dropped layers are removed.
        leading: fields that count leading layers; dropped leading layers are subtracted.
        indices: fields with absolute layer indices; dropped ones are removed, others renumbered.
        periods: fields that repeat a pattern over the layers, as a list says too; removed where
            the kept layers do not follow it.
        maps: fields with settings by layer number; those of dropped layers are removed, the others
            renumbered.
        shared: fields that must be zero, with what they share or pack between layers otherwise.
        unused: fields about packed weights that mean nothing where `shared` is zero.
        inside: attributes of the opened decoder with one entry per layer, read by position.
        last: the entry of `layer_types` that transformers gives the last layer whatever is listed.
    """

    lists: tuple[str, ...] = ()
    leading: tuple[str, ...] = ()
    indices: tuple[str, ...] = ()
    periods: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    shared: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    last: str = ""


_PLAIN = Decoder()
_TYPED = Decoder(lists=("layer_types",))
_QWEN2 = Decoder(lists=("layer_types",), leading=("max_window_layers",))
_QWEN3_5 = Decoder(lists=("layer_types",), periods=("full_attention_interval",))
_SLIDING = Decoder(
    lists=("layer_types",), periods=("sliding_window_pattern", "_sliding_window_pattern")
)
_SPARSE = Decoder(indices=("mlp_only_layers",))
_FIRST_DENSE = Decoder(leading=("first_k_dense_replace",))
_EXPERTS = Decoder(lists=("layer_types", "mlp_layer_types"))
_SHARED_KV = ("num_kv_shared_layers", "its last layers use the keys and values of earlier ones")
_GEMMA4_UNIFIED = Decoder(
    lists=("layer_types",), maps=("per_layer_config",), shared=(_SHARED_KV,), last="full_attention"
)
_GEMMA4 = replace(
    _GEMMA4_UNIFIED,
    shared=(
        ("hidden_size_per_layer_input", "one tensor packs embeddings of all layers"),
        _SHARED_KV,
    ),
    unused=("vocab_size_per_layer_input",),
)

DECODERS = {
    "aria_text": _PLAIN,
    "cohere_compass_text": _TYPED,
    "dots3_note_text": replace(_EXPERTS, maps=("per_layer_config",)),
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": _GEMMA4_UNIFIED,
    "granite_docling_text": _PLAIN,
    "hunyuan_vl_text": _PLAIN,
    "inkling_text": _EXPERTS,
    "lfm3": _TYPED,
    "llama4_text": Decoder(
        lists=("layer_types", "no_rope_layers"),
        indices=("moe_layers",),
        periods=("no_rope_layer_interval", "interleave_moe_layer_step"),
    ),
    "minimax_m3_vl_text": _EXPERTS,
    "mistral4": _FIRST_DENSE,
    "molmo2_text": Decoder(indices=("rope_scaling_layers",), inside=("rope_types",)),
    "muse_glimmer_text": Decoder(lists=("layer_types", "layer_rope_theta")),
    "muse_spark_text": Decoder(lists=("layer_types", "layer_rope_theta", "mlp_layer_types")),
    "persimmon": _PLAIN,
    "step3p5": Decoder(
        lists=("layer_types", "mlp_layer_types", "swiglu_limits", "swiglu_limits_shared"),
        maps=("per_layer_config",),
    ),
    "cosmos3_edge_text": _PLAIN,
    "ernie4_5_vl_moe_text": Decoder(
        lists=("mlp_layer_types",),
        periods=("moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval"),
    ),
    "glm_ocr_text": _PLAIN,
    "hyperclovax": _PLAIN,
    "paddleocr_vl_text": _PLAIN,
    "qwen2_5_omni_text": _QWEN2,
    "qwen3_omni_moe_text": _SPARSE,
    "cohere2": _SLIDING,
    "deepseek_v3": _FIRST_DENSE,
    "exaone4": _SLIDING,
    "gemma": _PLAIN,
    "gemma2": _SLIDING,
    "gemma3_text": _SLIDING,
    "glm4v_moe_text": _FIRST_DENSE,
    "glm4v_text": _PLAIN,
    "glm4": _PLAIN,
    "gpt_oss": _TYPED,
    "granite": _PLAIN,
    "granite4_vision_text": _PLAIN,
    "kimi_k2": _FIRST_DENSE,
    "lfm2": Decoder(lists=("layer_types",), indices=("full_attn_idxs",)),
    "llama": _PLAIN,
    "ministral3": _PLAIN,
    "mistral": _PLAIN,
    "mixtral": _PLAIN,
    "olmo2": _PLAIN,
    "olmo3": _TYPED,
    "phi3": _PLAIN,
    "qwen2": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen2_vl_text": _QWEN2,
    "qwen3": _QWEN2,
    "qwen3_5_moe_text": _QWEN3_5,
    "qwen3_5_text": _QWEN3_5,
    "qwen3_moe": _SPARSE,
    "qwen3_vl_moe_text": _SPARSE,
    "qwen3_vl_text": _PLAIN,
    "smollm3": Decoder(
        lists=("no_rope_layers", "layer_types"), periods=("no_rope_layer_interval",)
    ),
}
_TEXT = (  # decoders that are models of their own
    *("cohere2", "deepseek_v3", "exaone4", "gemma", "gemma2", "gemma3_text", "glm4", "gpt_oss"),
    *("granite", "lfm2", "llama", "ministral3", "mistral", "mixtral", "olmo2", "olmo3", "phi3"),
    *("qwen2", "qwen3", "qwen3_5_text", "qwen3_moe", "smollm3"),
)


@dataclass(frozen=True)
class Family:
    """The decoders of a family, and its other fields that refer to decoder layers.

    Attributes:
        decoders: `model_type` of the text configuration; the first is the default.
        entries: top-level fields that list the layers before which visual features are added, as
            layers or as pairs that end in one.
        takes_images: False: the decoder alone, opened by AutoModelForCausalLM, with a tokenizer
            in place of a processor.
    """

    decoders: tuple[str, ...]
    entries: tuple[str, ...] = ()
    takes_images: bool = True

    @property
    def lists(self) -> tuple[str, ...]:
        """The fields with one entry per layer, of all its decoders."""
        return self._fields("lists")

    @property
    def maps(self) -> tuple[str, ...]:
        """The fields with settings by layer number, of all its decoders."""
        return self._fields("maps")

    @property
    def inside(self) -> tuple[str, ...]:
        """The attributes of the opened decoder with one entry per layer, of all its decoders."""
        return self._fields("inside")

    def _fields(self, rule: str) -> tuple[str, ...]:
        return tuple(sorted({n for kind in self.decoders for n in getattr(DECODERS[kind], rule)}))


FAMILIES = {
    "aria": Family(("aria_text",)),
    "cohere_compass": Family(("cohere_compass_text",)),
    "dots3_note": Family(("dots3_note_text",)),
    "fuyu": Family(("persimmon",)),
    "gemma4": Family(("gemma4_text",)),
    "gemma4_unified": Family(("gemma4_unified_text",)),
    "granite_docling": Family(("granite_docling_text",)),
    "hunyuan_vl": Family(("hunyuan_vl_text",)),
    "inkling_mm_model": Family(("inkling_text",)),
    "lfm3_vl": Family(("lfm3",)),
    "llama4": Family(("llama4_text",)),
    "minimax_m3_vl": Family(("minimax_m3_vl_text",)),
    "molmo2": Family(("molmo2_text",)),
    "muse_glimmer": Family(("muse_glimmer_text",)),
    "muse_spark": Family(("muse_spark_text",)),
    "perception_lm": Family(("llama",)),
    "step3p7": Family(("step3p5",)),
    "cosmos3_edge": Family(("cosmos3_edge_text",)),
    "cosmos3_omni": Family(("qwen3_vl_text",)),
    "deepseek_vl": Family(("llama",)),
    "deepseek_vl_hybrid": Family(("llama",)),
    "ernie4_5_vl_moe": Family(("ernie4_5_vl_moe_text",)),
    "exaone4_5": Family(("exaone4",)),
    "fast_vlm": Family(("qwen2",)),
    "glm_ocr": Family(("glm_ocr_text",)),
    "glmga": Family(("glm4v_text",)),
    "got_ocr2": Family(("qwen2",)),
    "hyperclovax_vision_v2": Family(("hyperclovax",)),
    "janus": Family(("llama",)),
    "lighton_ocr": Family(("qwen3",)),
    "llava_next_video": Family(("llama",)),
    "minicpm_ocr": Family(("qwen3_5_text",)),
    "minicpmv4_6": Family(("qwen3_5_text",)),
    "minicpmv4_7": Family(("qwen3_5_text",)),
    "paddleocr_vl": Family(("paddleocr_vl_text",)),
    "pp_chart2table": Family(("qwen2",)),
    "qianfan_ocr": Family(("qwen3",)),
    "qwen2_5_omni_thinker": Family(("qwen2_5_omni_text",)),
    "qwen3_omni_moe_thinker": Family(("qwen3_omni_moe_text",)),
    "video_llama_3": Family(("qwen2",)),
    "video_llava": Family(("llama",)),
    "vipllava": Family(("llama",)),
    "aya_vision": Family(("cohere2",)),
    "cohere2_vision": Family(("cohere2",)),
    "gemma3": Family(("gemma3_text",)),
    "glm46v": Family(("glm4v_text",)),
    "glm4v": Family(("glm4v_text",)),
    "glm4v_moe": Family(("glm4v_moe_text",)),
    "granite4_vision": Family(
        ("granite4_vision_text",), entries=("deepstack_layer_map", "spatial_target_layers")
    ),
    "idefics2": Family(("mistral",)),
    "idefics3": Family(("llama",)),
    "internvl": Family(("qwen2", "gpt_oss", "llama", "qwen3", "qwen3_moe")),
    "kimi_k25": Family(("deepseek_v3", "kimi_k2")),
    "lfm2_vl": Family(("lfm2",)),
    "llava": Family(("llama", "mistral", "qwen2")),
    "llava_next": Family(("llama", "mistral")),
    "llava_onevision": Family(("qwen2",)),
    "mistral3": Family(("mistral", "ministral3", "mistral4")),
    "ovis2": Family(("qwen2",)),
    "paligemma": Family(("gemma", "gemma2")),
    "qwen2_5_vl": Family(("qwen2_5_vl_text",)),
    "qwen2_vl": Family(("qwen2_vl_text",)),
    "qwen3_5": Family(("qwen3_5_text",)),
    "qwen3_5_moe": Family(("qwen3_5_moe_text",)),
    "qwen3_vl": Family(("qwen3_vl_text",)),
    "qwen3_vl_moe": Family(("qwen3_vl_moe_text",)),
    "smolvlm": Family(("llama",)),
} | {kind: Family((kind,), takes_images=False) for kind in _TEXT}

_MOST_LAYERS = 10_000  # more are a mistake
_PACKED = "keeps weights of all layers in one tensor, or shares keys and values between layers"
REFUSED = {
    "gemma3n": _PACKED,
    "chameleon": "masks image tokens in its logits, which the loss on answers does not",
    "shieldgemma2": "is a classifier, whose saved weights AutoModelForImageTextToText does not find",
    "mllama": "has layers that text without an image does not pass through",
    "qwen3_omni_moe": "is not opened by AutoModelForImageTextToText",
}


@dataclass(frozen=True)
class Architecture:
    """The facts about a model that the choice of layers needs.

    Attributes:
        model_type: the family, as transformers names it.
        n_layers: decoder layers.
        deepstack_layers: leading decoder layers up to the last point at which visual features
            are added to the states.
    """

    model_type: str
    n_layers: int
    deepstack_layers: int

    @property
    def takes_images(self) -> bool:
        """True for a vision-language model, False for one that takes text alone."""
        return takes_images(self.model_type)


def takes_images(model_type: str) -> bool:
    """Return True for a family of vision-language models, False for one of text alone."""
    return model_type not in FAMILIES or FAMILIES[model_type].takes_images


def text_config(config: Config) -> Config:
    """Return the decoder's section of a configuration (not a copy)."""
    section: Config = config.get("text_config", config)
    return section


def architecture(config: Config, where: str) -> Architecture:
    """Read a model's configuration.

    Args:
        config: the contents of config.json.
        where: the file, for messages.

    Raises:
        InputError: the family is not supported, or the configuration lacks a field.
    """
    model_type = str(config.get("model_type"))
    if model_type in REFUSED:
        raise InputError(
            f"{where}: model_type {model_type!r} is not supported: it {REFUSED[model_type]};"
            " choose a model of another family"
        )
    if model_type not in FAMILIES:
        raise InputError(
            f"{where}: model_type {config.get('model_type')!r} is not a supported model;"
            f" supported: {', '.join(sorted(FAMILIES))}"
        )
    _check_types(config, where)
    decoder_kind(config, where)
    text = text_config(config)
    if "text_config" in config and "num_hidden_layers" not in text:
        text = as_read(config, where)[1]
    layers = text.get("num_hidden_layers")
    if type(layers) is not int or not 1 <= layers <= _MOST_LAYERS:
        raise InputError(f"{where}: num_hidden_layers = {layers!r} is not a count of layers")
    taps = config.get("vision_config", {}).get("deepstack_visual_indexes") or ()
    entries = [
        _target(entry)
        for field in FAMILIES[model_type].entries
        for entry in config.get(field) or ()
    ]
    return Architecture(model_type, layers, max([len(taps), *entries]))


def _check_types(config: Config, where: str) -> None:
    """Refuse sections that are no sections, flags that are no flags, and lists that are none."""
    for name in ("text_config", "vision_config"):
        if not isinstance(config.get(name, {}), dict):
            raise InputError(f"{where}: {name} = {config[name]!r}: expected keys and values")
    for section in (config, text_config(config)):
        flag = section.get("tie_word_embeddings", False)
        if not isinstance(flag, bool):
            raise InputError(f"{where}: tie_word_embeddings = {flag!r}: expected true or false")
    vision = config.get("vision_config", {})
    taps = vision.get("deepstack_visual_indexes") or []
    depth = vision.get("depth") if type(vision.get("depth")) is int else _MOST_LAYERS
    if not (isinstance(taps, list) and all(type(t) is int and 0 <= t < depth for t in taps)):
        raise InputError(
            f"{where}: deepstack_visual_indexes = {taps!r}: expected layers of the vision tower,"
            f" below {depth}"
        )
    for name in FAMILIES[config["model_type"]].entries:
        entries = config.get(name) or []
        if not (isinstance(entries, list) and all(map(_is_entry, entries))):
            raise InputError(f"{where}: {name} = {entries!r}: expected layers, or pairs with them")


def _is_entry(entry: Any) -> bool:
    pair = isinstance(entry, list) and len(entry) == 2
    return type(entry[1] if pair else entry) is int


def decoder_kind(config: Config, where: str) -> str:
    """Return the `model_type` of a supported family's decoder.

    Raises:
        InputError: the per-layer fields of this decoder are not known for this family.
    """
    decoders = FAMILIES[config["model_type"]].decoders
    text = config.get("text_config", {})
    kind = text.get("model_type") or decoders[0]
    if kind not in decoders:
        raise InputError(
            f"{where}: text_config.model_type {kind!r} is not a decoder that {config['model_type']}"
            f" is supported with: {', '.join(decoders)}"
        )
    return str(kind)


def as_read(config: Config, where: str) -> tuple[Config, Config]:
    """Read a configuration through transformers, with defaults: all of it, and its text section.

    Raises:
        InputError: transformers does not accept it.
    """
    from transformers import CONFIG_MAPPING

    try:
        read = CONFIG_MAPPING[config["model_type"]].from_dict(copy.deepcopy(config))
        return read.to_dict(), read.get_text_config(decoder=True).to_dict()
    except Exception as error:  # whatever a configuration class may raise over its fields
        reason = " ".join(str(error).split())
        raise InputError(
            f"{where}: transformers does not accept this configuration: {reason}; correct it"
        ) from None


def _target(entry: Any) -> int:
    """Return the decoder layer of an entry: the entry itself, or the second of a pair."""
    return int(entry[1] if isinstance(entry, list | tuple) else entry)


def vision_token_ids(config: Any) -> list[int]:
    """Return the ids of the tokens that stand for images and videos, from a model's `config`."""
    names = ("image_token_id", "image_token_index", "image_patch_id")
    names += ("video_token_id", "video_token_index")
    ids = {getattr(config, name, None) for name in names}
    return sorted(token for token in ids if token is not None)


def moved_map(settings: Config, keep: Sequence[int]) -> Config:
    """Return settings by layer number for the kept layers, by their new numbers."""
    by_layer = {int(layer): value for layer, value in settings.items()}
    return {str(new): by_layer[layer] for new, layer in enumerate(keep) if layer in by_layer}


def moved_entries(config: Any, family: Family, keep: Sequence[int], where: str) -> Config:
    """Move the entries of visual features, when layers are dropped, to the next kept layer.

    Raises:
        InputError: no kept layer follows, or two sets of features would enter at one layer.
    """
    moved: Config = {}
    layer_at: dict[int, int] = {}
    for field in family.entries:
        moved[field] = []
        for entry in config.get(field) or ():
            layer = _target(entry)
            position = sum(kept_layer < layer for kept_layer in keep)
            if position == len(keep) or layer_at.setdefault(position, layer) != layer:
                raise InputError(
                    f"{where}: {field}: visual features enter before layer {layer}, and need a"
                    " kept layer of their own at or after it; keep that layer"
                )
            moved[field].append(
                [entry[0], position] if isinstance(entry, list | tuple) else position
            )
    return moved
