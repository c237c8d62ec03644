"""The decoder's weights as a checkpoint stores them, beside the model they are loaded into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from interlace.errors import InputError
from interlace.families import decoder_layers
from interlace.outputs import whole
from interlace.safetensors_files import checkpoint_tensors
from interlace.stored_layers import layers_prefix


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
