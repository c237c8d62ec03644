"""2:4 sparsity: of every four neighbouring weights in a row of a linear layer, two are zero.

Nothing is dropped: these are baselines. Wanda (arXiv 2306.11695) keeps the weights of greatest
`|W_ij| * ||X_j||_2`, where X_j is input column j over all valid calibration tokens; magnitude keeps
those of greatest `|W_ij|`. The zeros are written out, so the checkpoint keeps its size and loads
anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from interlace.checkpoint.layers import StoredLayers
from interlace.checkpoint.replace import write_weights
from interlace.checkpoint.safetensors import stored_tensors
from interlace.errors import ContractError, InputError
from interlace.model.decoder import decoder_layers, following
from interlace.model.states import hooked, state_before
from interlace.samples.answered_rows import AnsweredRows
from interlace.system.resumable import intact

GROUP, KEPT = 4, 2


def mask_2_4(importance: Tensor) -> Tensor:
    """Mask the 2 weights of greatest importance among every 4 neighbours in a row.

    Args:
        importance: [out, in], in a multiple of 4; the lower of equal columns stays.

    Returns:
        Booleans [out, in], true for weights that stay.
    """
    groups = importance.reshape(importance.shape[0], -1, GROUP)  # [out, in/4, 4]
    order = groups.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter(-1, order[..., :KEPT], True)
    return mask.flatten(-2)  # [out, in]


def linear_layers(layer: nn.Module, number: int) -> dict[str, nn.Linear]:
    """Return the linear layers of a decoder layer by name.

    Raises:
        InputError: it keeps matrices elsewhere too, as packed experts do, or the count of columns
            is not a multiple of four.
    """
    modules = dict(layer.named_modules())
    linears = {name: module for name, module in modules.items() if isinstance(module, nn.Linear)}
    for name, module in modules.items():
        matrices = [weight for weight in module.parameters(recurse=False) if weight.ndim > 1]
        if matrices and not isinstance(module, nn.Linear | nn.Conv1d):
            raise InputError(
                f"2:4 sparsity: layer {number} keeps matrices in {name}, a {type(module).__name__},"
                " which is no linear layer; choose another method"
            )
    for name, linear in linears.items():
        if linear.in_features % GROUP:
            raise InputError(
                f"2:4 sparsity: {name} of layer {number} has {linear.in_features} input columns,"
                " not a multiple of 4; choose another method"
            )
    return linears


def sparsify(
    model: nn.Module, stored: StoredLayers, rows: AnsweredRows | None, scratch: Path
) -> dict[str, Path]:
    """Zero half of every decoder linear layer, layer by layer.

    Each layer's inputs are those of the model whose earlier layers are sparse already. For each
    layer, all samples run through the decoder up to it. That costs half as many passes of the
    decoder as it has layers, and memory for one layer's weights beside the model.

    Args:
        model: the dense model; its weights become the sparse ones. Without `rows` its weights are
            not read, and it may lie on torch's meta device.
        stored: its checkpoint's weights, which are masked in their stored dtype.
        rows: calibration samples for Wanda; `None`: by magnitude.
        scratch: folder for one file per layer; layers that are in it are not measured again.

    Returns:
        The file of each new weight by stored name.

    Raises:
        InputError: a layer that `linear_layers` refuses.
        ContractError: an input is not finite.
    """
    layers = decoder_layers(model)
    linears = [linear_layers(layer, number) for number, layer in enumerate(layers)]
    replaced: dict[str, Path] = {}
    for number in tqdm(range(len(layers)), unit="layer", desc="sparsify"):
        file = scratch / f"layer-{number:03d}.safetensors"
        if not intact(file):
            norms = input_norms(model, number, linears[number], rows) if rows else {}
            write_weights(_masked(stored, number, linears[number], norms), file)
        if rows:
            for weight, value in stored.new_values(model, file).items():
                weight.data = value
        replaced |= dict.fromkeys(stored_tensors(file), file)
    return replaced


def _masked(
    stored: StoredLayers, number: int, linears: Mapping[str, nn.Linear], norms: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Mask the stored weights of one layer; return them by stored name."""
    masked = {}
    for name, linear in linears.items():
        value = stored.read(number, f"{name}.weight", linear.weight.shape)
        importance = value.double().abs()
        if name in norms:
            importance *= norms[name].cpu()  # [out, in] * [in]
        masked[stored.name(number, f"{name}.weight")] = value * mask_2_4(importance)
    return masked


def input_norms(
    model: nn.Module, number: int, linears: Mapping[str, nn.Linear], rows: AnsweredRows
) -> dict[str, Tensor]:
    """Return `||X_j||_2` over all valid tokens by linear layer of a decoder layer, [in] float64.

    Raises:
        ContractError: an input is not finite.
    """
    device = next(model.parameters()).device
    squares = {
        name: torch.zeros(linear.in_features, dtype=torch.float64, device=device)
        for name, linear in linears.items()
    }
    follower = following(model, number)
    for group in range(len(rows.groups)):
        batch = rows.batch(group, device)
        valid = batch["attention_mask"].bool()  # [B, T]

        def add(name: str, args: tuple[Any, ...], _: object, valid: Tensor = valid) -> None:
            columns = args[0].reshape(*valid.shape, -1)[valid]  # [N, in]
            squares[name].add_(columns.double().square().sum(0))

        with torch.inference_mode(), hooked(linears, on_call=add):
            state_before(model, batch, follower)
    for name, total in squares.items():
        if not total.isfinite().all():
            raise ContractError(
                f"2:4 sparsity: an input of {name} of layer {number} is not finite; set"
                " dtype to float32"
            )
    return {name: total.sqrt() for name, total in squares.items()}
