"""The sizes of a model, from its configuration alone: weights by part, widths of states."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import nn

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.model.decoder import decoder_layers, decoder_of, norm_and_head
from interlace.params.healing import Also
from interlace.training.also import weights_of

FIXED = 576  # tokens of an image, where nothing tells: 24 x 24 patches


@dataclass(frozen=True)
class Sizes:
    """Counts of numbers in a model. Those of a layer are means over the layers.

    Attributes:
        n_layers: L, of the decoder.
        taps: leading layers after which visual features are added to the states.
        total: all weights; shared ones count once.
        layer: weights of a decoder layer.
        active: of these, those that a token meets: few of a layer's experts.
        linears: inputs and outputs of a layer's linears: the weights of an adapter of rank 1.
        largest: weights of the largest matrix, which ZeRO-3 gathers as a whole.
        outside: weights of the vision tower and the projector.
        also: weights that `finetune.also` trains, by its names.
        vocabulary: V.
        width: d, of the hidden states.
        query: of all heads' queries.
        key: of all heads' keys.
        inner: of the MLP's states that a token meets.
        normed_heads: queries and keys have norms of their own.
        patch: width and values of the vision tower by patch; see `Patch`.
        stored_bytes: of a weight on disk.
    """

    n_layers: int
    taps: int
    total: int
    layer: float
    active: float
    linears: float
    largest: int
    outside: int
    also: dict[str, int]
    vocabulary: int
    width: int
    query: int
    key: int
    inner: int
    normed_heads: bool
    patch: Patch
    stored_bytes: float

    @property
    def head(self) -> int:
        """Numbers of the head's matrix."""
        return self.vocabulary * self.width

    def pruned(self, drops: int) -> Sizes:
        """Return the sizes without so many layers."""
        total = self.total - round(drops * self.layer)
        return replace(self, n_layers=self.n_layers - drops, total=total)


@dataclass(frozen=True)
class Patch:
    """A patch of an image in the vision tower.

    Attributes:
        pixels: of an image token: all its patches; 0: images have a fixed number of tokens.
        per_token: patches that are merged to one image token.
        values: of a patch, as the processor hands it over.
        width: of the tower's states.
        inner: of its MLP's states.
        fixed: tokens of an image whose number does not depend on its size.
    """

    pixels: int = 0
    per_token: int = 1
    values: int = 0
    width: int = 0
    inner: int = 0
    fixed: int = 0


def model_sizes(checkpoint: Checkpoint) -> Sizes:
    """Build a model on torch's meta device, and count.

    Raises:
        InputError: not a supported model, or transformers does not accept its configuration.
    """
    with warnings.catch_warnings(action="ignore"):
        model = checkpoint.without_weights()
    layers, text = decoder_layers(model), model.config.get_text_config(decoder=True)
    n_layers, decoder = len(layers), decoder_of(model)
    per_token = _experts_met(text)
    total = _count(model.parameters())
    heads = _number(text, "num_attention_heads")
    head_width = _number(text, "head_dim") or int(text.hidden_size) // heads
    key_heads = _number(text, "num_key_value_heads") or heads
    inside = {id(p) for p in (*decoder.parameters(), *norm_and_head(model)[1].parameters())}
    outside = _count(p for p in model.parameters() if id(p) not in inside)
    return Sizes(
        n_layers=n_layers,
        taps=checkpoint.architecture.deepstack_layers,
        total=total,
        layer=_count(layers.parameters()) / n_layers,
        active=sum(w.numel() * per_token(w) for w in layers.parameters()) / n_layers,
        linears=sum(m.in_features + m.out_features for m in _linears(layers)) / n_layers,
        largest=max(weight.numel() for weight in model.parameters()),
        outside=outside,
        also={name: _count(weights_of(name, model).values()) for name in _named(model)},
        vocabulary=int(text.vocab_size),
        width=int(text.hidden_size),
        query=heads * head_width,
        key=key_heads * head_width,
        inner=_inner(text),
        normed_heads=any("q_norm" in name for name, _ in layers.named_parameters()),
        patch=_patch(model.config) if outside else Patch(),
        stored_bytes=_stored_bytes(checkpoint, model, total),
    )


def _named(model: nn.Module) -> Iterable[Also]:
    """Return the names of `finetune.also` that hold for a model."""
    names: tuple[Also, ...] = get_args(Also)
    with_images = hasattr(model.config, "vision_config")
    return [name for name in names if name != "projector" or with_images]


def _count(weights: Iterable[nn.Parameter]) -> int:
    return sum(weight.numel() for weight in weights)


def _linears(layers: nn.Module) -> list[nn.Linear]:
    return [module for module in layers.modules() if isinstance(module, nn.Linear)]


def _number(fields: Any, *names: str) -> int:
    """Return the first field that a configuration has, the largest of a list; 0: it has none.

    Fields by layer raise errors of their own where they are read as one.
    """
    for name in names:
        try:
            value = getattr(fields, name, None)
        except Exception:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        if values and all(type(item) is int and item > 0 for item in values):
            return int(max(values))
    return 0


def _experts_met(text: Any) -> Callable[[nn.Parameter], float]:
    """Return the share of a weight that a token meets: experts are stacked, [E, out, in]."""
    met = _number(text, "num_experts_per_tok")

    def share(weight: nn.Parameter) -> float:
        return min(1.0, met / weight.shape[0]) if met and weight.ndim == 3 else 1.0

    return share


def _inner(text: Any) -> int:
    """Return the width of the MLP's states that a token meets."""
    whole = _number(text, "intermediate_size") or 4 * int(text.hidden_size)
    if not (experts := _number(text, "num_experts_per_tok")):
        return whole
    shared = _number(text, "shared_expert_intermediate_size")
    return experts * (_number(text, "moe_intermediate_size") or whole) + shared


def _patch(config: Any) -> Patch:
    """Read the vision tower's patches; families name the same fields otherwise."""
    vision = getattr(config, "vision_config", None)
    side, width = _number(vision, "patch_size"), _number(vision, "embed_dim", "hidden_size")
    image = _number(vision, "image_size")
    patches = (image // side) ** 2 if image and side else FIXED
    tokens = _number(config, "mm_tokens_per_image", "image_seq_length") or patches
    if not (side and width):
        return Patch(fixed=tokens)
    values = 3 * (_number(vision, "temporal_patch_size") or 1) * side**2
    inner = _number(vision, "intermediate_size") or 4 * width
    if merge := _number(vision, "spatial_merge_size"):
        return Patch((side * merge) ** 2, merge**2, values, width, inner)
    return Patch(0, max(1, round(patches / tokens)), values, width, inner, tokens)


def _stored_bytes(checkpoint: Checkpoint, model: nn.Module, total: int) -> float:
    """Return the bytes of a weight on disk: of the files where they are, else by config.json."""
    if has_weights(checkpoint):
        return sum(tensor.size for tensor in checkpoint.tensors.values()) / total
    dtype = getattr(model.config, "dtype", None)
    return dtype.itemsize if isinstance(dtype, torch.dtype) else 2


def has_weights(checkpoint: Checkpoint) -> bool:
    """Return true where the weights lie beside config.json, complete or not."""
    return any(checkpoint.folder.glob("*.safetensors"))
