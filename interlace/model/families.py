"""A model's configuration: its family, its decoder, and the layers that its fields refer to.

A configuration is handled as plain JSON, so that `pin` can check a model without loading it. Fields
that the JSON leaves to transformers' defaults are read through transformers, and written out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interlace.errors import InputError
from interlace.model.rules import FAMILIES, REFUSED, Family

Config = dict[str, Any]


_MOST_LAYERS = 10_000  # more are a mistake


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
    names = ["image_token_id", "image_token_index", "image_patch_id"]  # Molmo 2's
    names += ["video_token_id", "video_token_index"]
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
