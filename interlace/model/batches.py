"""Rows -> padded batches of prompts, and word of the rows that cannot be read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from interlace.errors import InputError
from interlace.model import chat


def encode_rows(
    processor: Any,
    rows: Mapping[int, Mapping[str, Any]],
    max_length: int,
    *,
    answers: bool = False,
) -> tuple[dict[int, chat.Inputs], dict[int, str]]:
    """Make model inputs of rows.

    Args:
        processor: the model's processor.
        rows: FineVision rows, by any number.
        max_length: longest prompt, tokens.
        answers: encode the whole conversations, with labels; else the prompts alone.

    Returns:
        Inputs of the rows that can be read, and in one line why the others cannot, by number.
    """
    examples, left_out = {}, {}
    encode = chat.encode_training if answers else chat.encode_prompt
    for number, row in rows.items():
        try:
            if not isinstance(row["texts"][0]["user"], str):
                raise InputError("the first turn has no user text")  # a template would print None
            examples[number] = encode(processor, row, max_length=max_length)
        except MemoryError:
            raise
        except Exception as error:  # images, templates and processors fail in ways of their own
            left_out[number] = _reason(error)
    return examples, left_out


def _reason(error: Exception) -> str:
    """One line that is the same in every run: without addresses in memory."""
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    return re.sub(r" at 0x[0-9a-f]+", "", kind + " ".join(str(error).split()))


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Group rows of similar length so that no padded batch exceeds a number of tokens.

    A row longer than that is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    groups: list[list[int]] = []
    for i in order:  # the first of a group is its longest
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def token_batches(examples: Mapping[int, chat.Inputs], tokens: int) -> list[list[int]]:
    """The same for encoded rows, by their numbers."""
    numbers = list(examples)
    lengths = [examples[number]["input_ids"].shape[0] for number in numbers]
    return [[numbers[i] for i in group] for group in batches(lengths, tokens)]
