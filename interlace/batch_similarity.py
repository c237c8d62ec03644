"""A batch through the model: how every span of layers changes the states of each sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from interlace.chat import Inputs
from interlace.errors import ContractError
from interlace.families import vision_token_ids
from interlace.span_similarity import last_tokens, spans_up_to, token_sums
from interlace.states import STATES, first_not_finite


class NotFinite(ContractError):
    """A hidden state that is not finite: row of the batch, layer, and "input" or "output"."""

    def __init__(self, row: int, layer: int, side: str) -> None:
        super().__init__(f"row {row} of the batch: the {side} of layer {layer} is not finite")
        self.row, self.layer, self.side = row, layer, side


def measure_batch(
    model: Any, batch: Inputs, mode: str, max_span: int | None, *, pooled: bool = True
) -> dict[str, NDArray[Any]]:
    """All statistics of one batch, from one pass of the decoder without its head.

    Args:
        model: the dense model.
        batch: B padded prompts, where the model takes its inputs.
        mode: which states, a key of `STATES`.
        max_span: the longest span, layers; none: all.
        pooled: whether mean-pooled states are wanted.

    Returns:
        `spans` [S, 2] (first, span), `cosines` [B, S, 4] float64 (all, vision and text tokens, last
        token; NaN where there are no such tokens), `counts` [B, 2] (tokens, those of images), and
        if asked for `pooled` [B, 2, L, d] float64 (inputs, outputs).

    Raises:
        NotFinite: a state holds NaN or infinity.
    """
    attended = batch["attention_mask"].bool()  # [B, T]
    image_tokens = torch.tensor(vision_token_ids(model.config), device=attended.device)
    vision = attended & torch.isin(batch["input_ids"], image_tokens)
    masks = torch.stack([vision, attended & ~vision, last_tokens(attended)])
    with torch.inference_mode():
        inputs, outputs = STATES[mode](model, batch)
        cosine_sums, state_sums = token_sums(inputs, outputs, masks, pooled=pooled)
        sums = cosine_sums.cpu().numpy()  # [B, 3, L, L]
        if not np.isfinite(sums).all() and (broken := first_not_finite(inputs, outputs, attended)):
            raise NotFinite(*broken)
    spans = spans_up_to(max_span, len(inputs))
    sums = sums[:, :, spans[:, 0], spans.sum(1) - 1]  # [B, 3, S]
    counts = masks.sum(-1).T.cpu().numpy()  # [B, 3]
    sums, counts = (  # all tokens are those of images and of text
        np.concatenate([part[:, :2].sum(1, keepdims=True), part], 1) for part in (sums, counts)
    )
    with np.errstate(invalid="ignore"):  # 0 / 0 where there are no such tokens
        cosines = (sums / counts[..., None]).transpose(0, 2, 1)  # [B, 4, S] -> [B, S, 4]
    measured = {"spans": spans, "cosines": cosines, "counts": counts[:, :2]}
    if state_sums is not None:
        measured["pooled"] = state_sums.cpu().numpy() / counts[:, :1, None, None]
    return measured
