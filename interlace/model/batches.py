"""Rows -> model inputs and batches of similar length, with a reason for each skipped row."""

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
    """Encode rows as model inputs.

    Args:
        processor: the model's processor.
        rows: FineVision rows, by any number.
        max_length: longest prompt, tokens.
        answers: encode full conversations, with labels; else the first prompts alone.

    Returns:
        Inputs of the rows that can be read, and a one-line reason for each other row, by number.
    """
    examples, reasons = {}, {}
    encode = chat.encode_training if answers else chat.encode_prompt
    for number, row in rows.items():
        try:
            if not isinstance(row["texts"][0]["user"], str):
                raise InputError("the first turn has no user text")  # a template would print None
            examples[number] = encode(processor, row, max_length=max_length)
        except MemoryError:
            raise
        except Exception as error:  # images, templates and processors fail in ways of their own
            reasons[number] = _reason(error)
    return examples, reasons


def _reason(error: Exception) -> str:
    """Describe an error in one line without memory addresses, so that all runs write the same."""
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    return re.sub(r" at 0x[0-9a-f]+", "", kind + " ".join(str(error).split()))


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Group rows of similar length so that no padded batch exceeds a number of tokens.

    A longer row is a batch of its own.
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
    """Group encoded rows as `batches` does, by their numbers."""
    numbers = list(examples)
    lengths = [examples[number]["input_ids"].shape[0] for number in numbers]
    return [[numbers[i] for i in group] for group in batches(lengths, tokens)]
