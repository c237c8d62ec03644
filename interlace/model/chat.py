"""A FineVision row -> chat messages -> model inputs and labels.

Shapes: T tokens of one row, B rows of a batch. The images of a row belong to its first user turn.
Turns are tokenised one after another, as the model meets them when it generates: the prompt first,
then its own answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import torch

from interlace.errors import InputError
from interlace.model.images import open_image

Row = Mapping[str, Any]
Inputs = dict[str, torch.Tensor]

TODAY = datetime(2024, 7, 26)  # in templates that write the date, so that no result depends on it
NEEDING_IMAGES = {"PaliGemmaProcessor", "GotOcr2Processor", "PPChart2TableProcessor"}
FLAT_IMAGES = {"GotOcr2Processor"}  # takes lists of images for pages of one document alone
ASKED_FOR_TYPES = {
    "Cosmos3EdgeProcessor"
}  # return `mm_token_type_ids`, which the model needs, if asked
_NOW = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
IGNORED = -100  # the label that cross-entropy ignores
TYPES = frozenset({"mm_token_type_ids", "moe_mm_token_type_ids", "token_type_ids"})  # of tokens
PER_TOKEN = TYPES | {"input_ids", "labels", "attention_mask"}


class UnplacedLabels(InputError):
    """A conversation whose answers cannot be told from the text around them."""


def chat_messages(row: Row) -> list[dict[str, Any]]:
    """Return the conversation of a row: user and assistant messages in turn.

    Args:
        row: `images` (list, may be empty) and `texts` (list of user/assistant pairs).
    """
    messages: list[dict[str, Any]] = []
    for turn, text in enumerate(row["texts"]):
        content: list[dict[str, Any]] = []
        if turn == 0:
            content += [
                {"type": "image", "image": open_image(image)} for image in row["images"] or ()
            ]
        content.append({"type": "text", "text": text["user"]})
        messages.append({"role": "user", "content": content})
        answer = [{"type": "text", "text": text["assistant"]}]
        messages.append({"role": "assistant", "content": answer})
    return messages


def _rendered(processor: Any, messages: list[dict[str, Any]]) -> str:
    options: dict[str, Any] = {"add_generation_prompt": messages[-1]["role"] == "user"}
    if isinstance(template := processor.chat_template, str) and "strftime_now" in template:
        options["chat_template"] = _NOW.sub(lambda call: repr(TODAY.strftime(call[2])), template)
    text: str = processor.apply_chat_template(messages, tokenize=False, **options)
    return text


def _segments(processor: Any, messages: list[dict[str, Any]]) -> Iterator[tuple[str, bool]]:
    """Split the rendered conversation by message; tell which segments are answers."""
    prefix = ""
    for end in range(1, len(messages) + 1):
        text = _rendered(processor, messages[:end])
        if not text.startswith(prefix):
            raise UnplacedLabels(
                "the model's chat template rewrites earlier turns, so labels cannot be placed;"
                " set data.max_turns to 1, or give the model a template that only appends"
            )
        yield text[len(prefix) :], messages[end - 1]["role"] == "assistant"
        prefix = text


def encode_whole(processor: Any, messages: list[dict[str, Any]]) -> Inputs:
    """Tokenise a conversation in one piece, with images in any of its turns.

    Args:
        processor: the model's processor.
        messages: the conversation; one that ends with a user turn becomes a prompt.

    Returns:
        The processor's output: per token [T] int64, per image as it is.

    Raises:
        InputError: the family needs an image in each conversation, and this has none.
    """
    text = _rendered(processor, messages)
    images = [
        item["image"] for turn in messages for item in turn["content"] if item["type"] == "image"
    ]
    name = type(processor).__name__
    if not images and name in NEEDING_IMAGES:
        raise InputError(
            f"{name} takes no conversation without an image; remove such rows from the data"
        )
    begins = processor.tokenizer.bos_token
    # tokenizers saved after training may hold a length to cut or pad to; only max_length cuts here
    options = {"truncation": False, "padding": False}
    if name in ASKED_FOR_TYPES:
        options["return_mm_token_type_ids"] = True
    if begins and text.startswith(begins):
        options["add_special_tokens"] = False
    # one list of images per conversation: LLaVA-OneVision tiles an image only if it is alone
    batched_images = (images if name in FLAT_IMAGES else [images]) if images else None
    inputs = processor(text=[text], images=batched_images, return_tensors="pt", **options)
    return {name: value[0] if name in PER_TOKEN else value for name, value in inputs.items()}


def _sees_prompts_both_ways(processor: Any) -> bool:
    """Return True if token type 0 marks a bidirectional prompt, and 1 generated tokens."""
    return type(processor).__name__ == "PaliGemmaProcessor"


def encode_messages(
    processor: Any, messages: list[dict[str, Any]], *, max_length: int | None = None
) -> Inputs:
    """Tokenise a conversation that starts with the user's turn.

    Args:
        processor: the model's processor.
        messages: from `chat_messages`; a conversation that ends with a user turn becomes a prompt.
        max_length: tokens to keep. Later exchanges are dropped as a unit, then the end of the first
            answer is cut; a prompt is never cut, so image tokens stay together.

    Returns:
        Per token `input_ids`, `labels` (-100 except for the assistant's tokens), `attention_mask`
        and, from some processors, `mm_token_type_ids`, each [T] int64; per image the processor's
        output.

    Raises:
        InputError: the first prompt alone is longer than `max_length`.
    """
    inputs = encode_whole(processor, messages[:1])
    ids = inputs["input_ids"].tolist()
    prompt, limit = len(ids), max_length or 2**62
    if prompt > limit:
        raise InputError(f"a prompt of {prompt} tokens is longer than max_length = {max_length}")
    labels = [IGNORED] * prompt
    rest = list(_segments(processor, messages))[1:]
    for start, end in _exchanges(len(rest)):
        pieces = [
            (processor.tokenizer(text, add_special_tokens=False)["input_ids"], answer)
            for text, answer in rest[start:end]
        ]
        if start and len(ids) + sum(len(piece) for piece, _ in pieces) > limit:
            break
        for piece, answer in pieces:
            piece = piece[: limit - len(ids)]
            ids += piece
            labels += piece if answer else [IGNORED] * len(piece)
    fills = {"attention_mask": 1, "token_type_ids": int(_sees_prompts_both_ways(processor))}
    for name in PER_TOKEN & inputs.keys():
        fill = fills.get(name, 0)  # text, not image
        inputs[name] = torch.nn.functional.pad(inputs[name], (0, len(ids) - prompt), value=fill)
    return inputs | {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}


def _exchanges(segments: int) -> list[tuple[int, int]]:
    """Return bounds of segments that stay or go together: the first answer, then exchanges."""
    return [(0, min(1, segments))] + [(i, min(i + 2, segments)) for i in range(1, segments, 2)]


def encode_training(processor: Any, row: Row, *, max_length: int | None = None) -> Inputs:
    """Encode the full conversation, with labels on the assistant's turns only.

    The last answer of a row that is `cut` was not ended by the model that gave it: its end gets no
    label.
    """
    inputs = encode_messages(processor, chat_messages(row), max_length=max_length)
    return without_end(inputs, processor.tokenizer) if row.get("cut") else inputs


def without_end(inputs: Inputs, tokenizer: Any) -> Inputs:
    """Ignore what a chat template writes after the last answer: its first control token onwards."""
    labels = inputs["labels"].clone()
    control = torch.isin(labels, torch.tensor(tokenizer.all_special_ids))
    (unlabelled,) = torch.where(labels == IGNORED)
    control[: int(unlabelled[-1]) + 1 if len(unlabelled) else 0] = False  # before the last answer
    labels[control.cumsum(0) > 0] = IGNORED
    return inputs | {"labels": labels}


def encode_prompt(processor: Any, row: Row, *, max_length: int | None = None) -> Inputs:
    """Encode the first user turn and the generation prompt, as calibration uses them."""
    return encode_messages(processor, chat_messages(row)[:1], max_length=max_length)


def collate(examples: Sequence[Inputs], *, pad_token_id: int, side: str = "right") -> Inputs:
    """Pad the per-token inputs of rows to [B, T], join the per-image ones.

    Args:
        examples: what `encode_training` or `encode_prompt` returned.
        pad_token_id: fills `input_ids`.
        side: where padding goes: "right" for measuring and training, "left" for generating.
    """
    length = max(example["input_ids"].shape[0] for example in examples)
    fills = {"input_ids": pad_token_id, "labels": IGNORED}
    batch: Inputs = {}
    for name in sorted({name for example in examples for name in example}):
        if name not in PER_TOKEN:
            batch[name] = _joined(name, [example for example in examples if name in example])
            continue
        rows = [example.get(name, torch.zeros_like(example["input_ids"])) for example in examples]
        gaps = [length - row.shape[0] for row in rows]
        batch[name] = torch.stack(
            [
                torch.nn.functional.pad(
                    row, (gap, 0) if side == "left" else (0, gap), value=fills.get(name, 0)
                )
                for row, gap in zip(rows, gaps, strict=True)
            ]
        )  # [B, T]
    return batch


def _joined(name: str, examples: Sequence[Inputs]) -> torch.Tensor:
    """Join per-image or per-patch tensors of rows, padded by zeros in the other dimensions.

    Each family tells padding from images: by a mask, by the image's size, or because an image of
    only zeros counts as none.
    """
    rows = [example[name] for example in examples]
    if name == "pixel_values" and "target_sizes" in examples[0]:  # MiniCPM: one strip of patches
        return torch.cat(rows, dim=-1)  # [1, 3, patch, pixels of all patches]
    if name == "image_token_pooling":  # Molmo 2: patches by their number in the batch; -1: none
        counts = [example["pixel_values"].shape[:2].numel() for example in examples]
        starts = [sum(counts[:i]) for i in range(len(counts))]
        rows = [torch.where(r < 0, r, r + start) for r, start in zip(rows, starts, strict=True)]
    shape = [max(sizes) for sizes in zip(*(row.shape[1:] for row in rows), strict=True)]
    return torch.cat([_filled(row, shape) for row in rows])  # [images or patches of the batch, ...]


def _filled(row: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    if list(row.shape[1:]) == shape:
        return row
    filled = row.new_zeros(row.shape[0], *shape)
    filled[tuple(slice(size) for size in row.shape)] = row
    return filled
