"""Bypass decoder layers in memory, without touching the weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from interlace.model.decoder import decoder_layers, decoder_of
from interlace.model.families import moved_entries, moved_map
from interlace.model.rules import FAMILIES


def without(model: nn.Module, drop: Iterable[int]) -> nn.Module:
    """Return a copy of a model without some layers, which shares all weights with the original."""
    tensors = (*model.parameters(), *model.buffers())
    pruned = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    bypass(pruned, list(drop))
    return pruned


def bypass(model: nn.Module, drop: Sequence[int]) -> None:
    """Remove decoder layers from a model in memory.

    The kept layers are renumbered, and so is the configuration, so that caches have the right
    number of slots and visual features enter where they did.

    Raises:
        InputError: visual features would have no layer of their own to enter before.
    """
    layers = decoder_layers(model)
    keep = [layer for layer in range(len(layers)) if layer not in set(drop)]
    config: Any = model.config
    text = config.get_text_config(decoder=True)
    family = FAMILIES[config.model_type]
    entries = {name: getattr(config, name) for name in family.entries}
    for name, value in moved_entries(entries, family, keep, "the model").items():
        setattr(config, name, value)
    for name in family.lists:
        if getattr(text, name, None) is not None:
            setattr(text, name, [getattr(text, name)[layer] for layer in keep])
    settings = {name: text.to_dict().get(name) for name in family.maps}
    text.num_hidden_layers = len(keep)
    for name, by_layer in settings.items():
        setattr(text, name, moved_map(by_layer or {}, keep))
    decoder = decoder_of(model)
    for name in family.inside:
        setattr(decoder, name, [getattr(decoder, name)[layer] for layer in keep])
    decoder.layers = nn.ModuleList([layers[i] for i in keep])
    for position, layer in enumerate(decoder_layers(model)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position  # type: ignore[assignment]


@contextmanager
def bypassed(model: nn.Module, drop: Sequence[int]) -> Iterator[None]:
    """Remove decoder layers from a model while the block runs, and restore it afterwards."""
    decoder = decoder_of(model)
    config: Any = model.config
    text = config.get_text_config(decoder=True)
    family = FAMILIES[config.model_type]
    layers = decoder.layers
    fields = [(text, name) for name in ("num_hidden_layers", *family.lists)]
    fields += [(config, name) for name in family.entries]
    fields += [(decoder, name) for name in family.inside]
    values = [(owner, name, getattr(owner, name)) for owner, name in fields if hasattr(owner, name)]
    values += [(text, name, text.to_dict().get(name) or {}) for name in family.maps]
    numbered = [module for module in layers.modules() if hasattr(module, "layer_idx")]
    numbers = [module.layer_idx for module in numbered]
    try:
        bypass(model, drop)
        yield
    finally:
        decoder.layers = layers
        for owner, name, value in values:
            setattr(owner, name, value)
        for module, number in zip(numbered, numbers, strict=True):
            module.layer_idx = number
