"""Packing: samples laid end to end in rows, so that little is computed for padding.

No token sees another sample: position ids restart with every sample, and transformers cuts
attention there; `model.linear_attention` cuts what position ids do not reach. Each sample has the
position ids that it has alone, also for its images.

Shapes: S samples of T_s tokens, R rows of C tokens, P kinds of positions (1, or 4 with mrope: text,
time, height, width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.model.chat import IGNORED, PER_TOKEN, Inputs, collate

# Families whose packed rows equal single rows, see tests/training/test_packing.py. The others
# read the tokens before by a convolution, or let the tokens of an image see what follows.
PLAIN = {
    "aya_vision",
    "cohere2_vision",
    "granite4_vision",
    "idefics2",
    "idefics3",
    "internvl",
    "kimi_k25",
    "llava",
    "llava_next",
    "llava_onevision",
    "mistral3",
    "ovis2",
    "smolvlm",
    # text alone
    *("cohere2", "deepseek_v3", "exaone4", "gemma", "gemma2", "gemma3_text", "glm4", "granite"),
    *("llama", "ministral3", "mistral", "mixtral", "olmo2", "olmo3", "phi3", "qwen2", "qwen3"),
    *("qwen3_5_text", "qwen3_moe", "smollm3"),
}
MROPE = {
    "glm46v",
    "glm4v",
    "glm4v_moe",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_vl",
    "qwen3_vl_moe",
}
NOT_PACKED = {"gpt_oss"}  # decoders, in any family

Positions = Callable[[Inputs], Tensor]


def packs(config: Any) -> bool:
    """Return True if samples can share a row, by the model's configuration."""
    decoder = config.get_text_config(decoder=True).model_type
    return config.model_type in PLAIN | MROPE and decoder not in NOT_PACKED


def sample_positions(checkpoint: Checkpoint) -> Positions:
    """Return a function that returns a sample's position ids, [P, T], as the model counts them.

    Args:
        checkpoint: of a family that packs.
    """
    if checkpoint.transformers_config().model_type not in MROPE:
        return text_positions
    model = checkpoint.without_weights()  # counting needs its code and configuration alone
    return lambda example: mrope_positions(model.base_model, example)


def text_positions(example: Inputs) -> Tensor:
    """Return 0, 1, 2, ... as [1, T]."""
    return torch.arange(example["input_ids"].shape[0])[None]


def mrope_positions(base: Any, example: Inputs) -> Tensor:
    """Return positions in the text, in time, height and width, [4, T]."""
    text = text_positions(example)
    if "image_grid_thw" not in example:
        return text.expand(4, -1)
    axes, _ = base.get_rope_index(
        input_ids=example["input_ids"][None],
        mm_token_type_ids=example["mm_token_type_ids"][None],
        image_grid_thw=example["image_grid_thw"],
    )  # [3, 1, T]
    return torch.cat([text, axes[:, 0]])


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Distribute samples over rows: the longest first, each into the first row with room for it.

    Args:
        lengths: tokens of each sample.
        capacity: tokens of a row; no sample is longer.

    Returns:
        The samples of each row.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for sample in sorted(range(len(lengths)), key=lambda s: (-lengths[s], s)):
        row = next((r for r, tokens in enumerate(room) if tokens >= lengths[sample]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(capacity)
        rows[row].append(sample)
        room[row] -= lengths[sample]
    return rows


def pack(
    examples: Sequence[Inputs], positions: Positions, *, pad_token_id: int, one_row: bool = False
) -> Inputs:
    """Lay samples end to end in rows no longer than the longest sample.

    Attention then costs no more than in padded rows. The end of a row is filled with padding, which
    is a sequence of its own.

    Args:
        examples: what `chat.encode_training` returned.
        positions: see `sample_positions`.
        pad_token_id: fills `input_ids`.
        one_row: all samples in one row, for attention that takes sequences of differing length.

    Returns:
        `input_ids` and `labels` [R, C], `position_ids` [R, C] or [4, R, C], and the tensors of
        images, in the order of the rows. There is no attention mask: with one, transformers does
        not separate the samples.
    """
    lengths = [example["input_ids"].shape[0] for example in examples]
    capacity = sum(lengths) if one_row else max(lengths)
    rows = first_fit_decreasing(lengths, capacity)
    ids = torch.full((len(rows), capacity), pad_token_id)  # [R, C]
    labels = torch.full_like(ids, IGNORED)
    row_positions = []  # [P, C] of each row
    for number, samples in enumerate(rows):
        end = 0
        for sample in samples:
            begin, end = end, end + lengths[sample]
            ids[number, begin:end] = examples[sample]["input_ids"]
            labels[number, begin + 1 : end] = examples[sample]["labels"][1:]  # nothing precedes
        pieces = [positions(examples[sample]) for sample in samples]
        tail = torch.arange(capacity - end).expand(pieces[0].shape[0], -1)
        row_positions.append(torch.cat([*pieces, tail], dim=1))
    stacked = torch.stack(row_positions, dim=1)  # [P, R, C]
    ordered = [examples[sample] for samples in rows for sample in samples]
    return _images(ordered, pad_token_id) | {
        "input_ids": ids,
        "labels": labels,
        "position_ids": stacked if stacked.shape[0] > 1 else stacked[0],
    }


def _images(examples: Sequence[Inputs], pad_token_id: int) -> Inputs:
    """Return the tensors of images, joined as `chat.collate` joins them."""
    joined = collate(examples, pad_token_id=pad_token_id)
    return {name: value for name, value in joined.items() if name not in PER_TOKEN}
