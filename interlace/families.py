"""Where a model family keeps its decoder and its per-layer configuration.

The configuration is handled as plain JSON, so that `pin` can judge a model without loading it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interlace.errors import InputError

if TYPE_CHECKING:
    from torch import nn

Config = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """What a family's text configuration says layer by layer, beside `num_hidden_layers`.

    Attributes:
        lists: fields with one entry per layer; dropped layers' entries go.
        leading: fields that count leading layers; dropped leading layers are subtracted.
        indices: fields with absolute layer indices; dropped ones go, the others are renumbered.
    """

    lists: tuple[str, ...] = ()
    leading: tuple[str, ...] = ()
    indices: tuple[str, ...] = ()


FAMILIES = {
    "qwen3_vl": Family(),
    "qwen2_vl": Family(lists=("layer_types",), leading=("max_window_layers",)),
    "qwen2_5_vl": Family(lists=("layer_types",), leading=("max_window_layers",)),
}


@dataclass(frozen=True)
class Architecture:
    """What choosing layers needs to know of a model.

    Attributes:
        model_type: the family, as transformers names it.
        n_layers: decoder layers.
        deepstack_layers: leading decoder positions after which visual features are added.
    """

    model_type: str
    n_layers: int
    deepstack_layers: int


def text_config(config: Config) -> Config:
    """The decoder's part of a configuration (not a copy)."""
    part: Config = config.get("text_config", config)
    return part


def architecture(config: Config, where: str) -> Architecture:
    """Read a model's configuration.

    Args:
        config: the contents of config.json.
        where: the file, for messages.

    Raises:
        InputError: not a family that is supported, or a configuration that lacks a field.
    """
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise InputError(
            f"{where}: model_type {model_type!r} is not a supported vision-language model;"
            f" supported: {', '.join(sorted(FAMILIES))}"
        )
    layers = text_config(config).get("num_hidden_layers")
    if not isinstance(layers, int) or layers < 1:
        raise InputError(f"{where}: num_hidden_layers = {layers!r} is not a count of layers")
    taps = config.get("vision_config", {}).get("deepstack_visual_indexes") or ()
    return Architecture(model_type, layers, len(taps))


def pruned_config(config: Config, keep: Sequence[int], where: str) -> Config:
    """The configuration of a model that keeps only some decoder layers.

    Args:
        config: the contents of the dense model's config.json.
        keep: kept layers, ascending.
        where: the file, for messages.

    Raises:
        InputError: a per-layer field that no rule of the family covers.
    """
    arch = architecture(config, where)
    family = FAMILIES[arch.model_type]
    pruned = copy.deepcopy(config)
    text = text_config(pruned)
    covered = {*family.lists, *family.indices}
    for name, value in text.items():
        if isinstance(value, list) and name not in covered and _per_layer(name, value, arch):
            raise InputError(
                f"{where}: {name} speaks of single layers, and no rule says how to prune it;"
                f" add {name} to FAMILIES[{arch.model_type!r}]"
            )
    for name in family.lists:
        if isinstance(text.get(name), list):
            text[name] = [text[name][layer] for layer in keep]
    for name in family.leading:
        if isinstance(text.get(name), int):
            text[name] = sum(layer < text[name] for layer in keep)
    for name in family.indices:
        if isinstance(text.get(name), list):
            text[name] = [new for new, layer in enumerate(keep) if layer in text[name]]
    text["num_hidden_layers"] = len(keep)
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    pruned["tie_word_embeddings"] = text["tie_word_embeddings"] = tied
    if "rope_parameters" in text:
        text.pop("rope_scaling", None)
    return pruned


def _per_layer(name: str, value: list[Any], arch: Architecture) -> bool:
    """Whether a list has one entry per layer, or may hold indices of layers."""
    if not value or name.endswith("_token_id"):
        return False
    indices = all(type(item) is int and 0 <= item < arch.n_layers for item in value)
    return indices or len(value) == arch.n_layers


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder's layers, in order."""
    layers: nn.ModuleList = model.get_decoder().layers  # type: ignore[operator]
    return layers


def decoder_prefix(model: nn.Module) -> str:
    """The name of the decoder's layers in the model, e.g. `model.language_model.layers`."""
    layers = decoder_layers(model)
    names: list[str] = [name for name, module in model.named_modules() if module is layers]
    return names[0]


def vision_token_ids(config: Any) -> list[int]:
    """Ids of the tokens that stand for images and videos, from a transformers configuration."""
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
    found = {getattr(config, name, None) for name in names}
    return sorted(token for token in found if token is not None)


def bypass(model: nn.Module, drop: Sequence[int]) -> None:
    """Take decoder layers out of a model in memory, for good.

    The kept layers are renumbered, and so is the configuration, so that caches have the right
    number of slots.
    """
    from torch import nn

    layers = decoder_layers(model)
    keep = [layer for layer in range(len(layers)) if layer not in set(drop)]
    config = model.config.get_text_config(decoder=True)  # type: ignore[union-attr,operator]
    for name in FAMILIES[model.config.model_type].lists:  # type: ignore[union-attr,index]
        if getattr(config, name, None) is not None:
            setattr(config, name, [getattr(config, name)[layer] for layer in keep])
    config.num_hidden_layers = len(keep)
    model.get_decoder().layers = nn.ModuleList([layers[i] for i in keep])  # type: ignore[operator]
    for position, layer in enumerate(decoder_layers(model)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position  # type: ignore[assignment]
