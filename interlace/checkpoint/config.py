"""The configuration of a model without some decoder layers, or with weights of another type."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from interlace.checkpoint.spelling import add_older_spelling
from interlace.errors import InputError
from interlace.model.families import (
    Config,
    architecture,
    as_read,
    decoder_kind,
    moved_entries,
    moved_map,
    text_config,
)
from interlace.model.rules import DECODERS, FAMILIES, Decoder

_RECURRENT = {"linear_attention", "conv"}
_DEPTHS = {"num_hidden_layers", "vt_num_hidden_layers", "num_layers", "depth"}


def pruned_config(config: Config, keep: Sequence[int], where: str) -> Config:
    """Return the configuration of a model that keeps only some decoder layers.

    Args:
        config: the contents of the dense model's config.json.
        keep: kept layers, ascending.
        where: the file, for messages.

    Raises:
        InputError: a per-layer field that no rule of the decoder covers; visual features that would
            enter no layer, or share one; or no kept layer with attention.
    """
    arch = architecture(config, where)
    kind = decoder_kind(config, where)
    pruned = copy.deepcopy(config)
    text = text_config(pruned)
    _refuse_shared(text, config, kind, where)
    _refuse_uncovered(text, kind, arch.n_layers, where)
    _write_defaults(text, pruned, kind, where)
    _prune_layers(text, DECODERS[kind], keep, arch.n_layers, where)
    kinds = set(text.get("layer_types") or ("full_attention",))
    if kinds <= _RECURRENT:
        raise InputError(
            f"{where}: layer_types: only {' and '.join(sorted(kinds))} layers would be kept, and"
            " generation counts tokens in an attention layer; keep one"
        )
    _refuse_changed_last(text, kind, keep, where)
    family = FAMILIES[arch.model_type]
    pruned |= moved_entries(pruned, family, keep, where)
    pruned["tie_word_embeddings"] = text["tie_word_embeddings"] = tied_head(config, where)
    add_older_spelling(pruned, kind)
    return pruned


def _refuse_shared(text: Config, config: Config, kind: str, where: str) -> None:
    """Refuse layers that share what a single layer cannot take along, by config or by default."""
    for name, reason in DECODERS[kind].shared:
        value = text[name] if name in text else as_read(config, where)[1].get(name)
        if value:
            raise InputError(
                f"{where}: model_type {config['model_type']!r} with {name} = {value} is not"
                f" supported: {reason}; choose a model with {name} = 0"
            )


def _refuse_changed_last(text: Config, kind: str, keep: Sequence[int], where: str) -> None:
    """Refuse a last layer that transformers would turn into one of another kind."""
    last = DECODERS[kind].last
    if last and text["layer_types"][-1] != last:
        raise InputError(
            f"{where}: layer_types: the last kept layer, {keep[-1]}, is of kind"
            f" {text['layer_types'][-1]}, and transformers makes the last one {last}; keep the last"
            " layer: set select.protect_last to 1"
        )


def _refuse_uncovered(text: Config, kind: str, n_layers: int, where: str) -> None:
    rules = DECODERS[kind]
    covered = {*rules.lists, *rules.indices, *rules.maps, *rules.unused}
    for name, value in text.items():
        if name not in covered and _per_layer(name, value, n_layers):
            raise InputError(
                f"{where}: {name} is about single layers, and no rule says how to prune it;"
                f" add {name} to DECODERS[{kind!r}]"
            )


def _per_layer(name: str, value: Any, n_layers: int) -> bool:
    """Return true for a field with entries per layer or indices of layers, or of packed layers."""
    if name == "moe_layer_freq":
        return value not in (None, 1)  # 1: every layer after the leading dense ones
    if "per_layer" in name or name == "num_kv_shared_layers":
        return bool(value)
    if not isinstance(value, list) or not value or name.endswith("_token_id"):
        return False
    indices = all(type(item) is int and 0 <= item < n_layers for item in value)
    return indices or len(value) == n_layers


def _write_defaults(text: Config, config: Config, kind: str, where: str) -> None:
    """Write out the per-layer fields that the configuration leaves to defaults or to a pattern."""
    rules = DECODERS[kind]
    listed = rules.lists + (rules.indices if rules.periods else ())
    missing = [name for name in listed if not isinstance(text.get(name), list)]
    if missing:
        read = as_read(config, where)[1]
        text |= {name: read[name] for name in missing if isinstance(read.get(name), list)}
    step = text.get("decoder_sparse_step") or 1
    if "mlp_only_layers" in rules.indices and step != 1:
        n_layers = text.get("num_hidden_layers") or as_read(config, where)[1]["num_hidden_layers"]
        dense = {*(text.get("mlp_only_layers") or ())}
        dense |= {layer for layer in range(n_layers) if (layer + 1) % step}
        text |= {"mlp_only_layers": sorted(dense), "decoder_sparse_step": 1}


def _prune_layers(
    text: Config, rules: Decoder, keep: Sequence[int], n_layers: int, where: str
) -> None:
    for name in rules.lists:
        if isinstance(text.get(name), list):
            if len(text[name]) != n_layers:
                raise InputError(
                    f"{where}: {name} has {len(text[name])} entries, and num_hidden_layers is"
                    f" {n_layers}; copy the file again"
                )
            kept_entries = [text[name][layer] for layer in keep]
            if kept_entries != text[name][: len(keep)]:  # a pattern holds no more
                for period in rules.periods:
                    text.pop(period, None)
            text[name] = kept_entries
    for name in rules.leading:
        if isinstance(text.get(name), int):
            text[name] = sum(layer < text[name] for layer in keep)
    for name in rules.indices:
        if isinstance(text.get(name), list):
            text[name] = [new for new, layer in enumerate(keep) if layer in text[name]]
    for name in rules.maps:
        if text.get(name):
            text[name] = moved_map(text[name], keep)
    text["num_hidden_layers"] = len(keep)
    if text.get("num_nextn_predict_layers"):
        text["num_nextn_predict_layers"] = 0  # stored after the decoder's last layer


def tied_head(config: Config, where: str) -> bool:
    """Return true if the head shares the embeddings' weights; the two flags may differ."""
    levels = (config, text_config(config))
    flags = {bool(c["tie_word_embeddings"]) for c in levels if "tie_word_embeddings" in c}
    if len(flags) == 1:
        return flags.pop()
    return bool(as_read(config, where)[0].get("tie_word_embeddings"))


def refuse_odd_rope(config: Config, where: str) -> None:
    """Refuse sections of rotary positions that no forward pass can use: time, height and width."""
    text = text_config(config)
    for name in ("rope_parameters", "rope_scaling"):
        rope = text.get(name)
        sections = rope.get("mrope_section") if isinstance(rope, dict) else None
        if sections is None:
            continue
        counts = sections if isinstance(sections, list) else []
        axes = (
            (4,) if text.get("model_type") == "hunyuan_vl_text" else (3,)
        )  # and the image's number
        if len(counts) not in axes or not all(
            type(count) is int and count >= 0 for count in counts
        ):
            raise InputError(
                f"{where}: {name}.mrope_section = {str(sections)[:60]}: expected {axes[0]} counts;"
                " copy it again"
            )


def refuse_quantised(config: Config, where: str) -> None:
    """Refuse a configuration of quantised weights."""
    for section in (config, text_config(config)):
        for name in ("quantization_config", "compression_config"):
            if section.get(name):
                raise InputError(
                    f"{where}: {name}: quantised weights are not supported; export the model as it"
                    " was before, and quantise the result"
                )


def refuse_deep_towers(config: Config, tensors: int, where: str) -> None:
    """Refuse counts of layers larger than that of the stored tensors; building them takes long."""
    for section in (config, *(value for value in config.values() if isinstance(value, dict))):
        for name in _DEPTHS & section.keys():
            if isinstance(section[name], int) and section[name] > tensors:
                raise InputError(
                    f"{where}: {name} = {section[name]}, and the weights hold {tensors} tensors in"
                    " all; copy both again"
                )


def with_dtype(config: Config, dtype: str) -> Config:
    """Return the configuration of the same model with weights of another type, or `keep`."""
    if dtype == "keep":
        return config
    changed = copy.deepcopy(config)
    levels = [changed, *(value for value in changed.values() if isinstance(value, dict))]
    for level in levels:
        level |= dict.fromkeys({"dtype", "torch_dtype"} & level.keys(), dtype)
    if not {"dtype", "torch_dtype"} & changed.keys():
        changed["dtype"] = dtype
    return changed
