"""A conversation becomes tokens exactly as the model meets it, and labels where it answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import models
import pytest
import torch

from interlace.errors import InputError
from interlace.model.chat import (
    IGNORED,
    Inputs,
    chat_messages,
    collate,
    encode_prompt,
    encode_training,
)
from interlace.model.open import open_processor

VISUAL = 16  # tokens of one 64 x 64 image: 8-pixel patches, 2 x 2 merged
CASES = [{"images": images, "turns": turns} for images in (0, 1, 3) for turns in (1, 3)]


def text_of(processor: Any, ids: torch.Tensor) -> str:
    return processor.tokenizer.decode(ids, skip_special_tokens=False)


def image_tokens(processor: Any, example: Inputs) -> int:
    return int((example["input_ids"] == processor.image_token_id).sum())


def test_images_belong_to_the_first_user_turn() -> None:
    messages = chat_messages(models.row(0, images=2, turns=2))
    kinds = [[item["type"] for item in message["content"]] for message in messages]
    assert kinds == [["image", "image", "text"], ["text"], ["text"], ["text"]]
    assert [m["role"] for m in messages] == ["user", "assistant", "user", "assistant"]


CUT = {"direction": "Right", "max_length": 20, "strategy": "LongestFirst", "stride": 0}
PADDED = {
    **{"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": 64},
    **{"pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"},
}


@pytest.mark.parametrize("saved", [{"truncation": CUT}, {"padding": PADDED}], ids=list)
def test_a_length_saved_with_the_tokenizer_neither_cuts_nor_pads(
    processor: Any, dense_dir: Path, tmp_path: Path, saved: dict[str, Any]
) -> None:
    copy = shutil.copytree(dense_dir, tmp_path / "model")
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer | saved))
    row = models.row(5, images=1, turns=3)
    example = encode_training(open_processor(copy), row)
    assert torch.equal(example["input_ids"], encode_training(processor, row)["input_ids"])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tokens_are_those_of_the_rendered_conversation_and_labels_its_answers(
    processor: Any, case: dict[str, int]
) -> None:
    row = models.row(5, **case)
    example = encode_training(processor, row)
    ids, labels = example["input_ids"], example["labels"]
    rendered = processor.apply_chat_template(chat_messages(row), tokenize=False)
    assert text_of(processor, ids) == rendered.replace("<|image_pad|>", "<|image_pad|>" * VISUAL)
    answers = [f"{turn['assistant']}<|im_end|>\n" for turn in row["texts"]]
    assert text_of(processor, labels[labels != IGNORED]) == "".join(answers)
    assert torch.equal(labels[labels != IGNORED], ids[labels != IGNORED])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_end_of_a_cut_answer_has_no_label(processor: Any, case: dict[str, int]) -> None:
    row = models.row(5, **case)
    ended, cut = (encode_training(processor, row | {"cut": is_cut}) for is_cut in (False, True))
    assert torch.equal(ended["labels"], encode_training(processor, row)["labels"])
    assert torch.equal(ended["input_ids"], cut["input_ids"])
    answers = [f"{turn['assistant']}<|im_end|>\n" for turn in row["texts"]]
    labels = cut["labels"]
    text = "".join(answers).removesuffix("<|im_end|>\n")
    assert text_of(processor, labels[labels != IGNORED]) == text


def test_the_end_of_a_cut_answer_may_lie_beyond_the_bound(processor: Any) -> None:
    row = models.row(5, turns=2) | {"cut": True}
    whole = encode_training(processor, row | {"texts": row["texts"][:1], "cut": False})
    length = len(whole["input_ids"]) - 2  # the answer, without its end
    example = encode_training(processor, row, max_length=length)
    assert torch.equal(example["labels"], whole["labels"][:length])


def test_later_exchanges_are_dropped_as_a_unit(processor: Any) -> None:
    row = models.row(9, images=1, turns=3)
    lengths = [
        len(encode_training(processor, row | {"texts": row["texts"][:n]})["input_ids"])
        for n in (1, 2, 3)
    ]
    for limit in range(lengths[0], lengths[2] + 1):
        example = encode_training(processor, row, max_length=limit)
        assert len(example["input_ids"]) == max(n for n in lengths if n <= limit)


def test_the_first_answer_is_cut_at_its_end(processor: Any) -> None:
    row = models.row(9, images=1) | {"texts": [{"user": "What ?", "assistant": "1234567890"}]}
    uncut = encode_training(processor, row)
    limit = len(uncut["input_ids"]) - 4
    cut = encode_training(processor, row, max_length=limit)
    for name in ("input_ids", "labels"):
        assert torch.equal(cut[name], uncut[name][:limit])


@pytest.mark.parametrize("encode", [encode_prompt, encode_training])
def test_a_prompt_that_is_too_long_is_refused(processor: Any, encode: Any) -> None:
    row = models.row(11, images=1)
    length = len(encode_prompt(processor, row)["input_ids"])
    assert image_tokens(processor, encode(processor, row, max_length=length)) == VISUAL
    with pytest.raises(InputError, match=f"{length} tokens .* max_length = {length - 1}"):
        encode(processor, row, max_length=length - 1)


def test_a_template_that_rewrites_earlier_turns_is_refused(dense_dir: Any) -> None:
    processor = open_processor(dense_dir)
    processor.chat_template = "{{ messages | length }}" + processor.chat_template
    with pytest.raises(InputError, match="rewrites earlier turns"):
        encode_training(processor, models.row(12, images=0))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_goes_to_one_side_and_is_masked(processor: Any, side: str) -> None:
    examples = [encode_training(processor, models.row(seed, images=0)) for seed in (1, 2, 3)]
    batch = collate(examples, pad_token_id=7, side=side)
    longest = max(len(example["input_ids"]) for example in examples)
    assert batch["input_ids"].shape == (3, longest)
    for row, example in enumerate(examples):
        n = len(example["input_ids"])
        tokens = slice(longest - n, None) if side == "left" else slice(0, n)
        padding = slice(0, longest - n) if side == "left" else slice(n, None)
        for name in example:
            assert torch.equal(batch[name][row, tokens], example[name])
        assert (batch["input_ids"][row, padding] == 7).all()
        assert not batch["attention_mask"][row, padding].any()
        assert (batch["labels"][row, padding] == IGNORED).all()


def test_a_template_that_writes_the_date_writes_the_same_on_all_days(dense_dir: Path) -> None:
    processor = open_processor(dense_dir)
    processor.chat_template = "{{ strftime_now('%Y-%m-%d') }}" + processor.chat_template
    ids = encode_training(processor, models.row(12, images=1))["input_ids"]
    assert text_of(processor, ids).startswith("2024-07-26<|im_start|>user")
