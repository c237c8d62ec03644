"""Statistics of the tokens that may carry a massive activation, layer by layer, for one batch.

In pretrained decoders a few layers write a huge vector into one or two tokens, which later layers
attend to where nothing else matters (arXiv 2309.17453, 2402.17762). No mean over tokens shows it.

Shapes: B rows, T padded tokens, d the decoder's width, L its layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_EPSILON = 1e-12  # of a length: a state of zeros has cosine 0 with everything


def sink_statistics(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], attended: Tensor
) -> tuple[Tensor, Tensor]:
    """Measure each row's first token, and its token of greatest norm, at each layer.

    The token of greatest norm is the one with the longest input or output of that layer: at a layer
    that makes a massive activation its output is long, at one that ends it its input.

    Args:
        inputs: `x_0 .. x_{L-1}`, each [B, T, d].
        outputs: `y_0 .. y_{L-1}`, each [B, T, d].
        attended: [B, T] bool; padding does not count, on whichever side.

    Returns:
        Statistics [B, L, 8] float32: the median norm of the row's inputs and of its outputs; of the
        first token the cosine of input and output and the norms of both; the same of the token of
        greatest norm. And the position of that token among the row's tokens, [B, L].
    """
    device = inputs[0].device
    attended = attended.to(device)
    rows = torch.arange(len(attended), device=device)
    first = attended.int().argmax(-1)  # [B]
    positions = attended.cumsum(-1) - 1  # [B, T]
    norms = _norms([*inputs, *outputs], device)
    medians = {
        key: values.masked_fill(~attended, torch.nan).nanmedian(-1).values  # [B]
        for key, values in norms.items()
    }
    norms_in, norms_out, medians_in, medians_out = (
        torch.stack([values[id(state)] for state in side])  # [L, B, T] or [L, B]
        for values in (norms, medians)
        for side in (inputs, outputs)
    )
    longest = torch.maximum(norms_in, norms_out).masked_fill(~attended, -1).argmax(-1)  # [L, B]
    columns = [medians_in, medians_out]
    for tokens in (first.expand_as(longest), longest):
        x, y = (_at(side, rows, tokens) for side in (inputs, outputs))  # [L, B, d]
        lengths = [n.gather(-1, tokens[..., None])[..., 0] for n in (norms_in, norms_out)]
        cosines = (x * y).sum(-1) / (lengths[0] * lengths[1]).clamp(min=_EPSILON)
        columns += [cosines, *lengths]
    return torch.stack(columns, -1).transpose(0, 1), positions[rows, longest].T


def _at(states: Sequence[Tensor], rows: Tensor, tokens: Tensor) -> Tensor:
    """Take a token of each row from each layer's states, [L, B, d] float32."""
    pairs = zip(states, tokens, strict=True)
    return torch.stack(
        [s[rows.to(s.device), t.to(s.device)].to(rows.device) for s, t in pairs]
    ).float()


def _norms(states: Sequence[Tensor], device: torch.device) -> dict[int, Tensor]:
    """Return the norms [B, T] of states by identity; a state that appears twice is read once."""
    distinct = {id(state): state for state in states}
    return {
        key: torch.linalg.vector_norm(state, dim=-1, dtype=torch.float32).to(device)
        for key, state in distinct.items()
    }
