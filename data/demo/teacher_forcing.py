"""Teacher forcing: the loss on answers, and the rows whose answers are predicted right."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from fitting import Share

from interlace.model.chat import IGNORED, Inputs, collate


def answer_logits(model: Any, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [N, V] and targets [N] of the N answer tokens; other logits are never computed.

    Rows are padded on the right, so causal attention alone keeps padding out of every answer.
    """
    labels = inputs.pop("labels")
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].float()
    inputs.pop("attention_mask")
    states = model.model(**inputs, use_cache=False).last_hidden_state  # [B, T, d]
    predicts = labels[:, 1:] != IGNORED
    return model.lm_head(states[:, :-1][predicts]), labels[:, 1:][predicts]


@torch.inference_mode()
def teacher_forced(model: Any, encoded: list[Inputs], pad: int) -> float:
    """Percent of rows whose answer tokens are all predicted right, given those before them."""
    right = 0
    for start in range(0, len(encoded), 64):
        inputs = collate(encoded[start : start + 64], pad_token_id=pad)
        row_of_token = (inputs["labels"][:, 1:] != IGNORED).nonzero()[:, 0]
        logits, targets = answer_logits(model, inputs)
        wrong = row_of_token[logits.argmax(-1) != targets]
        right += len(encoded[start : start + 64]) - len(wrong.unique())
    return 100 * right / len(encoded)


def backward(
    model: Any, batch: Sequence[Inputs], share: Share, pad: int, micro_batches: int = 2
) -> float:
    """Add this process's share of the gradient of the batch's mean loss per answer token.

    Rows of similar length go together, to spend less on padding.

    Returns:
        This process's share of the loss.
    """
    tokens = sum((row["labels"] != IGNORED).sum().item() for row in batch)
    mine = sorted(batch, key=lambda row: len(row["input_ids"]))[share.rank :: share.of]
    bounds = [len(mine) * part // micro_batches for part in range(micro_batches + 1)]
    total = 0.0
    for start, end in pairwise(bounds):
        if start == end:
            continue
        logits, targets = answer_logits(model, collate(mine[start:end], pad_token_id=pad))
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / tokens
        loss.backward()
        total += loss.item()
    return total
