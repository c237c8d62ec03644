"""The decoder's layers in a checkpoint's files: their names, sizes and values."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interlace.checkpoint.safetensors import Stored, stored_tensors
from interlace.errors import InputError
from interlace.model.families import Config, text_config

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Shapes = dict[str, tuple[int, ...]]  # of a layer's tensors, by their name within it
Stacks = dict[str, dict[int, Shapes]]  # modules in numbered order, by name and number


@dataclass(frozen=True)
class StoredLayers:
    """The weights of a decoder's layers as a checkpoint stores them.

    Attributes:
        tensors: all tensors of the checkpoint by stored name, but those of layers numbered after
            the decoder's last: multi-token prediction, which transformers does not open.
        prefix: the stored name of the decoder's list of layers.
    """

    tensors: Mapping[str, Stored]
    prefix: str

    @classmethod
    def find(
        cls,
        folder: Path,
        tensors: Mapping[str, Stored],
        *,
        n_layers: int,
        config: Config,
        build: Callable[[], Any],
    ) -> StoredLayers:
        """Find the decoder's layers among a checkpoint's tensors.

        They are the only stack of at least `n_layers` layers, each with a vector of the decoder's
        width. Where that leaves several or none, they are the stack whose layers hold as many
        numbers each as those of the model that transformers builds: files may name, split and join
        tensors otherwise than the model does.

        Args:
            folder: the checkpoint, for messages.
            tensors: all of its tensors by stored name.
            n_layers: layers of the decoder.
            config: the contents of config.json.
            build: builds the model without its weights.

        Raises:
            InputError: no stack, or more than one, fits; or a layer lacks a tensor.
        """
        stacks = _stacks(tensors, n_layers)
        if not stacks:
            raise InputError(
                f"{folder}: the weights hold no stack of {n_layers} layers, which config.json says;"
                " copy both again"
            )
        width = (text_config(config).get("hidden_size"),)
        wide = [
            prefix
            for prefix, layers in stacks.items()
            if all(width in shapes.values() for shapes in layers.values())
        ]
        if len(wide) == 1:
            prefix = wide[0]
            _refuse_incomplete(folder, prefix, stacks[prefix], config)
        else:
            prefix = _as_large_as_built(folder, stacks, build())
        every = cls(tensors, prefix)
        later = {name for name in tensors if (every.split(name) or (0, ""))[0] >= n_layers}
        return cls({name: tensors[name] for name in tensors if name not in later}, prefix)

    def name(self, layer: int, weight: str) -> str:
        """Return the stored name of a layer's weight."""
        return f"{self.prefix}.{layer}.{weight}"

    def split(self, name: str) -> tuple[int, str] | None:
        """Split a stored name into layer and weight; `None` outside of the decoder's layers."""
        match = re.fullmatch(rf"{re.escape(self.prefix)}\.(\d+)\.(.+)", name)
        return (int(match[1]), match[2]) if match else None

    def parameters(self) -> Counter[int]:
        """Return the count of stored numbers by layer."""
        counts: Counter[int] = Counter()
        for name, tensor in self.tensors.items():
            if (layer_and_weight := self.split(name)) is not None:
                counts[layer_and_weight[0]] += tensor.count
        return counts

    def with_values(self, file: Path) -> StoredLayers:
        """Return the same layers with the values that a safetensors file has by stored name."""
        return replace(self, tensors={**self.tensors, **stored_tensors(file)})

    def read(self, layer: int, weight: str, shape: torch.Size) -> Tensor:
        """Read a layer's weight in the stored dtype.

        Raises:
            InputError: the checkpoint holds it under another name or in another shape.
        """
        from safetensors import safe_open

        name = self.name(layer, weight)
        if name in self.tensors and self.tensors[name].shape == tuple(shape):
            with safe_open(self.tensors[name].path, framework="pt") as file:
                value: Tensor = file.get_tensor(name)
            return value
        raise InputError(
            f"{name}: not stored as the model has it, {tuple(shape)}; load the checkpoint with"
            " transformers and save_pretrained it"
        )

    def new_values(self, model: nn.Module, file: Path) -> dict[nn.Parameter, Tensor]:
        """Read new values of layers' weights, in the dtype and on the device of a model.

        Args:
            model: the dense model.
            file: safetensors file of values by stored name.

        Returns:
            New values by the parameter of the model that they are for.
        """
        from safetensors.torch import load_file

        from interlace.model.decoder import decoder_layers

        values: dict[nn.Parameter, Tensor] = {}
        for name, value in load_file(file).items():
            layer, _, weight = name.removeprefix(f"{self.prefix}.").partition(".")
            parameter = decoder_layers(model)[int(layer)].get_parameter(weight)
            values[parameter] = value.to(parameter.device, parameter.dtype)
        return values


def _stacks(tensors: Mapping[str, Stored], n_layers: int) -> Stacks:
    """Find the stacks of at least `n_layers` layers; later layers are ignored."""
    stacks: Stacks = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.+?)\.(\d+)\.(.+)", name)
        if match and int(match[2]) < n_layers:
            stacks.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3]] = tensor.shape
    return {prefix: layers for prefix, layers in stacks.items() if len(layers) == n_layers}


def _refuse_incomplete(
    folder: Path, prefix: str, layers: dict[int, Shapes], config: Config
) -> None:
    """Refuse a layer that lacks tensors of another and has none of its own.

    Layers of two kinds differ both ways, or are of two kinds by `layer_types`: Gemma 4's layers
    with full attention may have no values of their own.
    """
    listed = text_config(config).get("layer_types")
    kinds = (
        listed if isinstance(listed, list) and len(listed) == len(layers) else [""] * len(layers)
    )
    layer_by_names = {(frozenset(s), str(kinds[layer])): layer for layer, s in layers.items()}
    for (names, kind), layer in layer_by_names.items():
        for (more_names, other_kind), complete_layer in layer_by_names.items():
            if names < more_names and kind == other_kind:
                lacking = min(more_names - names)
                raise InputError(
                    f"{folder}: the weights lack {prefix}.{layer}.{lacking}, and hold"
                    f" {prefix}.{complete_layer}.{lacking}; copy the checkpoint again"
                )


def _as_large_as_built(folder: Path, stacks: Stacks, model: Any) -> str:
    """Find the stack that is as large, layer by layer, as the decoder that transformers builds."""
    from interlace.model.decoder import decoder_layers, decoder_prefix

    sizes = {
        number: sum(weight.numel() for weight in layer.state_dict().values())
        for number, layer in enumerate(decoder_layers(model))
    }
    fitting = [
        prefix
        for prefix, layers in stacks.items()
        if {n: sum(map(math.prod, shapes.values())) for n, shapes in layers.items()} == sizes
    ]
    if len(fitting) != 1:
        raise InputError(
            f"{folder}: the weights hold {len(fitting)} stacks of layers like"
            f" {decoder_prefix(model)}, not one; load it with transformers and save_pretrained it"
        )
    return fitting[0]
