"""The parts of an opened model's decoder: its layers, and what follows them."""

from __future__ import annotations

import json
from typing import Any

from torch import nn

from interlace.errors import InputError
from interlace.model.families import architecture

NORMS = ("norm", "embedding_norm", "final_layernorm")  # after the last layer: LFM2's, Persimmon's


def decoder_of(model: nn.Module) -> Any:
    """Return the module that holds the decoder's layers.

    `get_decoder` of some families returns a model with a head, which holds it as `model`.
    """
    decoder: Any = model.get_decoder()  # type: ignore[operator]
    while not hasattr(decoder, "layers") and hasattr(decoder, "model"):
        decoder = decoder.model
    return decoder


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the decoder's layers, in order."""
    layers: nn.ModuleList = decoder_of(model).layers
    return layers


def decoder_prefix(model: nn.Module) -> str:
    """Return the name of the decoder's layers in the model, `model.language_model.layers`."""
    layers = decoder_layers(model)
    names: list[str] = [name for name, module in model.named_modules() if module is layers]
    return names[0]


def norm_and_head(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return what follows the last decoder layer: the final norm, and the head that gives logits.

    Raises:
        InputError: they are not where all supported families have them.
    """
    decoder = decoder_of(model)
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    norm = next((getattr(decoder, name) for name in NORMS if hasattr(decoder, name)), None)
    if not isinstance(norm, nn.Module) or head is None:
        raise InputError(
            f"{type(model).__name__}: no final norm at get_decoder().norm, or no output embeddings;"
            " the loss on answers needs both: choose another method, or export.compensate = none"
        )
    return norm, head


def head_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weight of the head, [V, d], by its name; empty where it is the embeddings'."""
    module: Any = model
    weight = module.get_output_embeddings().weight
    if weight is module.get_input_embeddings().weight:
        return {}
    return {name: value for name, value in model.named_parameters() if value is weight}


def norm_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of all norms of the decoder by name.

    They are those before and after attention and MLP, of queries, keys and latents, and the last.
    """
    decoder = decoder_of(model)
    norms = [module for module in decoder.modules() if "Norm" in type(module).__name__]
    ids = {id(weight) for norm in norms for weight in norm.parameters(recurse=False)}
    return {name: weight for name, weight in model.named_parameters() if id(weight) in ids}


def following(model: nn.Module, layer: int) -> nn.Module:
    """Return the module after a layer: the next layer, or the final norm after the last."""
    layers = decoder_layers(model)
    return layers[layer + 1] if layer + 1 < len(layers) else norm_and_head(model)[0]


def deepstack_layers(model: nn.Module) -> int:
    """Return the count of leading layers after which visual features are added."""
    config: Any = model.config
    fields = json.loads(config.to_json_string(use_diff=False))  # lists, as in a file, not tuples
    return architecture(fields, "the model").deepstack_layers
