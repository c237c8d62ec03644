"""What the decoder's layers are called in a checkpoint's files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from interlace.checkpoint.safetensors import Stored, checkpoint_tensors
from interlace.errors import InputError
from interlace.model.decoder import decoder_layers, decoder_prefix
from interlace.model.families import architecture, read_config, text_config
from interlace.outputs import whole

Shapes = dict[str, tuple[int, ...]]  # of a layer's tensors, by their name within it
Stacks = dict[str, dict[int, Shapes]]  # modules in numbered order, by name and number


def layers_prefix(
    folder: Path, tensors: Mapping[str, Stored], trust_remote_code: bool = False
) -> str:
    """What the decoder's layers are called in a checkpoint.

    It is the only stack of at least as many layers as the decoder has, each with a vector of the
    decoder's width. Where the files leave that open, it is the stack whose layers hold as many
    numbers each as those of the model that transformers builds, without its weights: files may
    name, split and join tensors otherwise than the model does. Layers numbered behind the decoder's
    last (multi-token prediction) are not the decoder's.

    Args:
        folder: the checkpoint.
        tensors: as `checkpoint_tensors` found them there.
        trust_remote_code: let the model's own code define its architecture.

    Raises:
        InputError: none, or more than one, fits; or a layer lacks a tensor.
    """
    config = read_config(folder / "config.json")
    n_layers = architecture(config, str(folder / "config.json")).n_layers
    stacks = _stacks(tensors, n_layers)
    width = (text_config(config).get("hidden_size"),)
    wide = [
        prefix
        for prefix, layers in stacks.items()
        if all(width in shapes.values() for shapes in layers.values())
    ]
    if len(wide) != 1:
        return _as_built(folder, stacks, trust_remote_code)
    _refuse_incomplete(folder, wide[0], stacks[wide[0]])
    return wide[0]


def _stacks(tensors: Mapping[str, Stored], n_layers: int) -> Stacks:
    """The stacks of at least so many layers, without those numbered behind."""
    found: Stacks = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.+?)\.(\d+)\.(.+)", name)
        if match and int(match[2]) < n_layers:
            found.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3]] = tensor.shape
    return {prefix: layers for prefix, layers in found.items() if len(layers) == n_layers}


def _refuse_incomplete(folder: Path, prefix: str, layers: dict[int, Shapes]) -> None:
    """Refuse a layer whose tensors are only some of another's; layers of two kinds have others."""
    kinds = {frozenset(shapes): number for number, shapes in layers.items()}
    for some, number in kinds.items():
        for all_, other in kinds.items():
            if some < all_:
                lacking = min(all_ - some)
                raise InputError(
                    f"{folder}: the weights lack {prefix}.{number}.{lacking}, and hold"
                    f" {prefix}.{other}.{lacking}; copy the checkpoint again"
                )


def _as_built(folder: Path, stacks: Stacks, trust_remote_code: bool) -> str:
    """The stack that is as large, layer by layer, as the decoder that transformers builds."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model: Any = AutoModelForImageTextToText.from_config(
            config, trust_remote_code=trust_remote_code
        )
    wanted = {
        number: sum(weight.numel() for weight in layer.state_dict().values())
        for number, layer in enumerate(decoder_layers(model))
    }
    fitting = [
        prefix
        for prefix, layers in stacks.items()
        if {n: sum(map(math.prod, shapes.values())) for n, shapes in layers.items()} == wanted
    ]
    if len(fitting) != 1:
        raise InputError(
            f"{folder}: the weights hold {len(fitting)} stacks of layers like"
            f" {decoder_prefix(model)}, not one; load it with transformers and save_pretrained it"
        )
    return fitting[0]


@dataclass(frozen=True)
class StoredLayers:
    """Where a checkpoint keeps the weights of its decoder's layers.

    Attributes:
        files: the file of each stored tensor.
        prefix: what the decoder's layers are called in it.
    """

    files: Mapping[str, Path]
    prefix: str

    @classmethod
    def of(cls, folder: Path, trust_remote_code: bool = False) -> StoredLayers:
        """Those of a checkpoint.

        Raises:
            InputError: no safetensors weights, or not one stack of layers.
        """
        tensors = checkpoint_tensors(folder)
        files = {name: tensor.path for name, tensor in tensors.items()}
        return cls(files, layers_prefix(folder, tensors, trust_remote_code))

    def name(self, layer: int, weight: str) -> str:
        """What a weight of a layer is stored as."""
        return f"{self.prefix}.{layer}.{weight}"

    def read(self, layer: int, weight: str, shape: torch.Size) -> Tensor:
        """The stored value of a layer's weight, in the stored dtype.

        Raises:
            InputError: the checkpoint holds it under another name or in another shape.
        """
        name = self.name(layer, weight)
        if name in self.files:
            with safe_open(self.files[name], framework="pt") as file:
                value: Tensor = file.get_tensor(name)
            if value.shape == shape:
                return value
        raise InputError(
            f"{name}: not stored as the model has it, {tuple(shape)}; load the checkpoint with"
            " transformers and save_pretrained it"
        )

    def weights(self, model: nn.Module, file: Path) -> dict[nn.Parameter, Tensor]:
        """New values in a file by stored name, as weights of a dense model, its dtype and device.

        Returns:
            The model's parameters and what they shall hold.
        """
        found: dict[nn.Parameter, Tensor] = {}
        for name, value in load_file(file).items():
            layer, _, weight = name.removeprefix(f"{self.prefix}.").partition(".")
            parameter = decoder_layers(model)[int(layer)].get_parameter(weight)
            found[parameter] = value.to(parameter.device, parameter.dtype)
        return found


def write_weights(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors by stored name, whole or not at all."""
    with whole(file) as partial:
        on_cpu = {name: value.cpu().contiguous() for name, value in tensors.items()}
        save_file(on_cpu, partial, metadata={"format": "pt"})
