"""Cosines between the inputs and outputs of spans of layers, for one batch.

Shapes: B rows, T padded tokens, d the decoder's width, L its layers, M masks, D distinct states.
The input `x_i` and output `y_i` of layer i are [B, T, d]. In most of a decoder `y_i` and `x_{i+1}`
are one tensor, which is read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interlace.errors import ContractError
from interlace.measurements.sinks import sink_statistics
from interlace.model.chat import Inputs
from interlace.model.families import vision_token_ids
from interlace.model.states import STATES, first_not_finite
from interlace.params.measuring import Collect

_CHUNK = {"cpu": 2**20, "cuda": 2**27}  # numbers of states taken at once: a cache, or enough work
_WIDENS = torch.__version__ >= "2.8"  # products of 16 bits to 32
_EPSILON = 1e-24  # of a squared length: a state of zeros has cosine 0 with everything


def spans_up_to(longest: int | None, n_layers: int) -> NDArray[np.int64]:
    """List all spans of p <= longest layers, shorter ones first: [S, 2] (first layer, span).

    Args:
        longest: layers; `None`: all spans.
        n_layers: L.
    """
    most = min(longest or n_layers, n_layers)
    return np.array([(i, p) for p in range(1, most + 1) for i in range(n_layers - p + 1)])


def token_sums(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], masks: Tensor, *, pooled: bool
) -> tuple[Tensor, Tensor | None]:
    """Sum `cos(x_i[t], y_j[t])` of all layers i and j, and the states themselves, over tokens.

    All dot products of a token are one product of its states, [D, d], with themselves. The diagonal
    holds the squared lengths that turn them into cosines, so no state is normalised. Products and
    sums of up to a thousand tokens are float32 whatever the states' dtype; sums of these are
    float64. States may lie on several devices; the sums are on that of the first.

    Args:
        inputs: `x_0 .. x_{L-1}`, each [B, T, d].
        outputs: `y_0 .. y_{L-1}`, each [B, T, d].
        masks: [M, B, T] bool; tokens in none of them are ignored.
        pooled: sum the states as well.

    Returns:
        Cosines [B, M, L, L] float64 over the tokens of each mask and, if pooled, states
        [B, 2, L, d] float64 (inputs, outputs) over the tokens of any. NaN where a state is not
        finite, or so large that its square is not.
    """
    states, x, y = _distinct(inputs, outputs)
    (rows, tokens, width), n = states[0].shape, len(states)
    device = states[0].device
    masks = masks.to(device)
    weights, padding = masks.transpose(0, 1).float(), ~masks.any(0)  # [B, M, T], [B, T]
    is_padded = bool(padding.any())
    cosines = torch.zeros(rows, len(masks), n * n, dtype=torch.float64, device=device)
    sums = torch.zeros(rows, n * width if pooled else 0, dtype=torch.float64, device=device)
    for r, t in _chunks(rows, tokens, _CHUNK.get(device.type, 2**25) // (n * width)):
        u = torch.stack([state[r, t].to(device) for state in states], 2)  # [b, t, D, d]
        if is_padded:
            u[padding[r, t]] = 0  # it may not be finite
        if pooled:
            sums[r] += u.flatten(2).sum(1, dtype=torch.float32)  # [b, D*d]
        dots = _products(u)  # [b, t, D, D]
        squares = dots.diagonal(dim1=-2, dim2=-1)  # [b, t, D]
        inverse = squares.masked_fill(squares.isinf(), torch.nan).clamp_(min=_EPSILON).rsqrt_()
        dots *= inverse[..., None]
        dots *= inverse[..., None, :]
        cosines[r] += weights[r, :, t] @ dots.flatten(2)  # [b, M, t] [b, t, D*D]
    both = cosines.reshape(rows, -1, n, n)[:, :, x][..., y]  # [B, M, L, L]
    if not pooled:
        return both, None
    return both, sums.reshape(rows, n, width)[:, [x, y]]  # [B, 2, L, d]


def _products(u: Tensor) -> Tensor:
    """Multiply each token's states with themselves in float32, [b, t, D, d] -> [b, t, D, D]."""
    if u.is_cuda and u.dtype in (torch.bfloat16, torch.float16) and _WIDENS:
        flat = u.flatten(0, 1)
        products: Tensor = torch.bmm(flat, flat.mT, out_dtype=torch.float32)
        return products.view(*u.shape[:3], u.shape[2])
    u = u.float()
    return u @ u.mT


def _distinct(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> tuple[list[Tensor], list[int], list[int]]:
    """Return each tensor once, and the indices of all inputs and all outputs among them."""
    states: dict[int, Tensor] = {}
    indices: dict[int, int] = {}
    for pair in zip(inputs, outputs, strict=True):
        for state in pair:
            states[id(state)] = state
            indices.setdefault(id(state), len(indices))
    x, y = ([indices[id(state)] for state in side] for side in (inputs, outputs))
    return list(states.values()), x, y


def _chunks(rows: int, tokens: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Split a [rows, tokens] grid into chunks of at most so many tokens, or of one."""
    t = max(1, min(tokens, most))
    b = max(1, most // t)
    for row in range(0, rows, b):
        for token in range(0, tokens, t):
            yield slice(row, row + b), slice(token, token + t)


def last_tokens(attended: Tensor) -> Tensor:
    """Mask the last attended token of each row, [B, T], wherever the padding lies."""
    positions = torch.arange(1, attended.shape[1] + 1, device=attended.device) * attended  # [B, T]
    return attended & (positions == positions.amax(-1, keepdim=True))


class NotFinite(ContractError):
    """A hidden state that is not finite: row of the batch, layer, and "input" or "output"."""

    def __init__(self, row: int, layer: int, side: str) -> None:
        super().__init__(f"row {row} of the batch: the {side} of layer {layer} is not finite")
        self.row, self.layer, self.side = row, layer, side


def measure_batch(
    model: Any, batch: Inputs, params: Collect, *, pooled: bool = True
) -> dict[str, NDArray[Any]]:
    """Measure one batch in one pass of the decoder without its head.

    Args:
        model: the dense model.
        batch: B padded prompts, on the model's input device.
        params: the mode, a key of `STATES`, and the longest span.
        pooled: return mean-pooled states as well.

    Returns:
        `spans` [S, 2] (first, span), `cosines` [B, S, 4] float64 (all, vision and text tokens, last
        token; NaN where there are no such tokens), `counts` [B, 2] (tokens, those of images),
        `sinks` [B, L, 8] and `largest` [B, L] (see `sink_statistics`), and if `pooled` [B, 2, L, d]
        float64 (inputs, outputs).

    Raises:
        NotFinite: a state holds NaN or infinity.
    """
    attended = batch["attention_mask"].bool()  # [B, T]
    image_tokens = torch.tensor(vision_token_ids(model.config), device=attended.device)
    vision = attended & torch.isin(batch["input_ids"], image_tokens)
    masks = torch.stack([vision, attended & ~vision, last_tokens(attended)])
    with torch.inference_mode():
        inputs, outputs = STATES[params.mode](model, batch)
        cosine_sums, state_sums = token_sums(inputs, outputs, masks, pooled=pooled)
        sinks, largest = sink_statistics(inputs, outputs, attended)
        sums = cosine_sums.cpu().numpy()  # [B, 3, L, L]
        if not np.isfinite(sums).all() and (first := first_not_finite(inputs, outputs, attended)):
            row, layer, side = first
            if params.mode == "reference" and side == "output":  # the next layer's input
                layer, side = layer + 1, "input"
            raise NotFinite(row, layer, side)
    spans = spans_up_to(params.max_span, len(inputs))
    sums = sums[:, :, spans[:, 0], spans.sum(1) - 1]  # [B, 3, S]
    counts = masks.sum(-1).T.cpu().numpy()  # [B, 3]
    sums, counts = (  # all tokens are those of images and of text
        np.concatenate([array[:, :2].sum(1, keepdims=True), array], 1) for array in (sums, counts)
    )
    with np.errstate(invalid="ignore"):  # 0 / 0 where there are no such tokens
        cosines = (sums / counts[..., None]).transpose(0, 2, 1)  # [B, 4, S] -> [B, S, 4]
    measurements = {"spans": spans, "cosines": cosines, "counts": counts[:, :2]}
    measurements |= {"sinks": sinks.cpu().numpy(), "largest": largest.cpu().numpy()}
    if state_sums is not None:
        measurements["pooled"] = state_sums.cpu().numpy() / counts[:, :1, None, None]
    return measurements
