"""A checkpoint on disk: configuration, weights, processor, and how to open them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from interlace.checkpoint.config import (
    pruned_config,
    refuse_deep_towers,
    refuse_odd_rope,
    refuse_quantised,
)
from interlace.checkpoint.layers import StoredLayers
from interlace.checkpoint.safetensors import FLOATS, WRITABLE, Stored, checkpoint_tensors
from interlace.errors import InputError, complaint
from interlace.model.families import Architecture, Config, architecture
from interlace.model.files import CONFIG, read_object


@dataclass(frozen=True)
class Checkpoint:
    """A stock Hugging Face checkpoint. Its files are read when they are first asked for, once.

    Attributes:
        folder: holds config.json, safetensors weights and the processor's files. A hub id does
            where only `open_model` and `open_processor` are called.
        trust_remote_code: let the model's own Python code run.
    """

    folder: Path
    trust_remote_code: bool = False

    def at(self, folder: Path) -> Checkpoint:
        """Return a checkpoint that was made from this one and needs the same code."""
        return replace(self, folder=folder)

    @cached_property
    def config(self) -> Config:
        """The contents of config.json.

        Raises:
            InputError: it is missing or not readable.
        """
        if not os.path.lexists(self.config_file):
            raise InputError(f"{self.folder}: no {CONFIG}; is this a model folder?")
        return read_object(self.config_file)

    @property
    def config_file(self) -> Path:
        """The path of config.json."""
        return self.folder / CONFIG

    @cached_property
    def architecture(self) -> Architecture:
        """The family and the depth of the decoder.

        Raises:
            InputError: not a supported family, or a configuration that lacks a field.
        """
        return architecture(self.config, str(self.config_file))

    @cached_property
    def tensors(self) -> Mapping[str, Stored]:
        """All tensors by stored name, from the headers of the files; no weight is read.

        Raises:
            InputError: no safetensors weights, or not all of them.
        """
        return checkpoint_tensors(self.folder)

    @cached_property
    def layers(self) -> StoredLayers:
        """The decoder's layers as the files name them.

        Raises:
            InputError: no stack of tensors, or more than one, fits the decoder.
        """
        return StoredLayers.find(
            self.folder,
            self.tensors,
            n_layers=self.architecture.n_layers,
            config=self.config,
            build=self.without_weights,
        )

    def check(self) -> None:
        """Refuse a model that cannot be pruned, from its configuration and headers alone.

        Raises:
            InputError: quantised weights, numbers of a type that cannot be computed with, more
                layers than the files hold, or a field for which no rule of pruning exists.
        """
        where = str(self.config_file)
        refuse_quantised(self.config, where)
        refuse_deep_towers(self.config, len(self.tensors), where)
        pruned_config(self.config, range(self.architecture.n_layers), where)
        for name, tensor in self.tensors.items():
            inside = self.layers.split(name) is not None
            if tensor.dtype not in (FLOATS if inside else WRITABLE):
                raise InputError(
                    f"{tensor.path}: {name} holds numbers of type {tensor.dtype}: quantised weights"
                    " are not supported; use the model as it was before"
                )

    @property
    def parameters(self) -> int:
        """The count of all stored numbers that transformers opens."""
        return sum(tensor.count for tensor in self.layers.tensors.values())

    def transformers_config(self) -> Any:
        """Return the configuration as transformers reads it."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.folder, trust_remote_code=self.trust_remote_code)

    def without_weights(self) -> Any:
        """Return the model's modules and shapes alone, on torch's meta device.

        Raises:
            InputError: transformers does not accept the configuration.
        """
        import torch

        from interlace.model.open import auto_model

        try:
            with torch.device("meta"):
                return auto_model(self.folder).from_config(
                    self.transformers_config(), trust_remote_code=self.trust_remote_code
                )
        except Exception as error:  # whatever a model's class raises over its configuration
            raise InputError(
                f"{self.config_file}: transformers does not accept this configuration:"
                f" {complaint(error)}; copy it again"
            ) from None

    def open_model(
        self,
        *,
        dtype: str = "auto",
        device_map: str = "none",
        attn_implementation: str | None = None,
    ) -> Any:
        """Open the model for inference; see `interlace.model.open.open_model`."""
        from interlace.model.open import open_model

        return open_model(
            self.folder,
            dtype=dtype,
            trust_remote_code=self.trust_remote_code,
            device_map=device_map,
            attn_implementation=attn_implementation,
        )

    def check_opens(self) -> Any:
        """Return the model, opened on torch's meta device; see `interlace.model.open.check_opens`.

        Raises:
            InputError: config.json cannot be used, or it does not fit the weights.
        """
        from interlace.model.open import check_opens

        _ = self.architecture  # its sections are there
        refuse_odd_rope(self.config, str(self.config_file))
        return check_opens(self.folder, trust_remote_code=self.trust_remote_code)

    def open_processor(
        self, *, min_pixels: int | None = None, max_pixels: int | None = None
    ) -> Any:
        """Open the processor; see `interlace.model.open.open_processor`."""
        from interlace.model.open import open_processor

        return open_processor(
            self.folder,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            trust_remote_code=self.trust_remote_code,
        )
