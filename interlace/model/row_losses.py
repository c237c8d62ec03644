"""The loss of each row: cross-entropies of its answer tokens, and the model's choices.

One forward pass gives both, without generating: each answer token is predicted from the true text
before it (teacher forcing). Shapes: T tokens of a row, N of them answer tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from interlace.errors import InputError, way_to_finite
from interlace.model.answer_loss import answer_states, token_losses
from interlace.model.batches import batches
from interlace.model.chat import IGNORED, PER_TOKEN, Inputs, collate
from interlace.model.open import input_device

BATCH_TOKENS = 8192  # padded tokens of a forward pass


@dataclass(frozen=True)
class RowLoss:
    """The loss of one row, and the tokens behind it.

    Attributes:
        loss: sum of the cross-entropies of the answer tokens, nats.
        tokens: the true answer tokens, [N].
        choices: the model's first choice in place of each, given the true text before it, [N].
    """

    loss: float
    tokens: tuple[int, ...]
    choices: tuple[int, ...]

    @property
    def correct(self) -> int:
        """Number of answer tokens that are the model's first choice."""
        return sum(choice == token for choice, token in zip(self.choices, self.tokens, strict=True))


def row_losses(
    model: Any,
    examples: Sequence[Inputs],
    *,
    pad_token_id: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> list[RowLoss]:
    """Measure the loss of encoded rows with a model in memory.

    Args:
        model: a family's model in evaluation mode, as `open_model` gives it; pruned or bypassed
            in memory as well.
        examples: rows as `chat.encode_training` encodes them; see `last_answer` for rows of
            several turns.
        pad_token_id: fills shorter rows of a batch; no result depends on it.
        batch_tokens: padded tokens of one pass; a longer row is a pass of its own.

    Returns:
        One loss per row, in the order of `examples`.

    Raises:
        InputError: a row has no answer token, or the model's numbers are not finite.
    """
    counts = [int((example["labels"][1:] != IGNORED).sum()) for example in examples]
    if 0 in counts:
        raise InputError(f"row {counts.index(0)}: no answer token; give each row an answer")
    lengths = [example["input_ids"].shape[0] for example in examples]
    losses: dict[int, RowLoss] = {}
    for rows in batches(lengths, batch_tokens):
        batch = _batch(model, [examples[row] for row in rows], pad_token_id)
        by_token, choices = token_losses(model, batch)
        _, tokens = answer_states(batch["input_ids"], batch["labels"])
        sizes = [counts[row] for row in rows]
        columns = (torch.split(column.cpu(), sizes) for column in (by_token, tokens, choices))
        if not by_token.isfinite().all():
            dtype = str(model.dtype).removeprefix("torch.")
            raise InputError(
                f"the loss of a row is not finite in {dtype}; {way_to_finite(dtype, 'dtype')}"
            )
        for row, row_loss, row_tokens, row_choices in zip(rows, *columns, strict=True):
            losses[row] = RowLoss(
                row_loss.sum().item(), tuple(row_tokens.tolist()), tuple(row_choices.tolist())
            )
    return [losses[row] for row in range(len(examples))]


def _batch(model: Any, examples: Sequence[Inputs], pad_token_id: int) -> Inputs:
    """Pad rows to [B, T], on the model's device; pixels get its dtype."""
    device = input_device(model)
    return {
        name: value.to(device, model.dtype if value.is_floating_point() else None)
        for name, value in collate(examples, pad_token_id=pad_token_id).items()
    }


def last_answer(example: Inputs) -> Inputs:
    """Keep the labels of the last answer alone: the one that a held-out row asks for.

    Args:
        example: from `chat.encode_training`; its labels end with those of the last answer.
    """
    labels = example["labels"].clone()
    labels[: _prompt_length(example)] = IGNORED
    return example | {"labels": labels}


def prompt_of(example: Inputs) -> Inputs:
    """Cut a row before its last answer: the tokens that generation starts from.

    Args:
        example: from `chat.encode_training`.

    Returns:
        The inputs without labels, as `chat.encode_messages` encodes the turns before that answer.
    """
    length = _prompt_length(example)
    return {
        name: value[:length] if name in PER_TOKEN else value
        for name, value in example.items()
        if name != "labels"
    }


def _prompt_length(example: Inputs) -> int:
    """Count the tokens before the last answer."""
    (unlabelled,) = torch.where(example["labels"] == IGNORED)
    return int(unlabelled[-1]) + 1 if len(unlabelled) else 0
