from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models import row, rows
from PIL import Image

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.model.chat import Inputs, chat_messages, collate

pytestmark = pytest.mark.usefixtures("lmms_eval")


def opened(model_dir: Path, batch_size: int) -> Any:
    from interlace.evaluation.run.adapter import open_adapter

    return open_adapter(Checkpoint(model_dir), batch_size=batch_size)


def requests(
    conversations: list[list[dict[str, Any]]], *, longest: int = 8, until: tuple[str, ...] = ()
) -> list[Any]:
    settings = {"max_new_tokens": longest, "until": list(until)}
    return [
        SimpleNamespace(args=(str(turns[-1]), lambda turns: turns, settings, place, "task", "test"))
        for place, turns in enumerate(conversations)
    ]


def answers(adapter: Any, conversations: list[list[dict[str, Any]]], **settings: Any) -> list[str]:
    adapter.task_dict = {"task": {"test": conversations}}
    return adapter.generate_until(requests(conversations, **settings))


CONVERSATIONS = [chat_messages(made)[:-1] for made in rows(11)]


def test_batched_answers_equal_one_by_one_answers(model_dir: Path) -> None:
    one_by_one = answers(opened(model_dir, 1), CONVERSATIONS)
    assert len(set(one_by_one)) > 2  # else equality would say little
    for batch_size in (2, 4, 16):
        assert answers(opened(model_dir, batch_size), CONVERSATIONS) == one_by_one


def test_padding_on_the_left_does_not_change_the_next_token(model_dir: Path) -> None:
    adapter = opened(model_dir, 4)
    adapter.task_dict = {"task": {"test": CONVERSATIONS}}
    encoded = [adapter._encode(request) for request in requests(CONVERSATIONS)]

    def logits(examples: list[Inputs]) -> torch.Tensor:
        batch = collate(examples, pad_token_id=adapter.pad_id, side="left")
        with torch.inference_mode():
            return adapter.model(**batch).logits[:, -1]

    alone = torch.cat([logits([example]) for example in encoded])
    assert len({example["input_ids"].shape[0] for example in encoded}) > 4
    torch.testing.assert_close(logits(encoded), alone, atol=1e-4, rtol=1e-4)


def test_answers_equal_generation_without_the_adapter(model_dir: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(model_dir)
    model = AutoModelForImageTextToText.from_pretrained(model_dir).eval()
    turns = chat_messages(row(3, images=2))[:1]
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    pictures = [part["image"] for part in turns[0]["content"] if part["type"] == "image"]
    inputs = processor(text=[text], images=pictures, return_tensors="pt")
    made = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    expected = processor.batch_decode(
        made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    assert answers(opened(model_dir, 4), [turns]) == expected


def test_windows_of_encoded_prompts_do_not_change_answers(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answers(opened(model_dir, 3), CONVERSATIONS)
    monkeypatch.setattr("interlace.evaluation.run.adapter.WINDOW_BATCHES", 1)
    assert answers(opened(model_dir, 3), CONVERSATIONS) == expected
    monkeypatch.setattr("interlace.evaluation.run.adapter.WINDOW_BYTES", 1)
    assert answers(opened(model_dir, 3), CONVERSATIONS) == expected


def test_answers_stop_before_the_first_stop_and_at_the_longest(model_dir: Path) -> None:
    adapter = opened(model_dir, 4)
    whole = answers(adapter, CONVERSATIONS)
    stop = whole[0][1]
    cut = answers(adapter, CONVERSATIONS, until=(stop,))
    assert cut == [answer.split(stop)[0] for answer in whole]
    shorter = answers(adapter, CONVERSATIONS, longest=2)
    assert shorter != whole
    assert all(long.startswith(short) for short, long in zip(shorter, whole, strict=True))


def test_answers_end_at_the_end_token(model_dir: Path) -> None:
    adapter = opened(model_dir, 4)
    turns = CONVERSATIONS[0]
    whole = answers(adapter, [turns])[0]
    tokenizer = adapter.processor.tokenizer
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    adapter.end_ids = frozenset({ids[2]})
    assert adapter._decode(ids) == tokenizer.decode(ids[: ids.index(ids[2])])


def test_a_checkpoint_that_samples_is_still_answered_greedily(model_dir: Path) -> None:
    from transformers import AutoModelForImageTextToText, GenerationConfig

    from interlace.evaluation.run.adapter import CheckpointAdapter
    from interlace.model.open import open_processor

    model = AutoModelForImageTextToText.from_pretrained(model_dir).eval()
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=5.0, repetition_penalty=3.0, eos_token_id=[1]
    )
    adapter = CheckpointAdapter(model, open_processor(model_dir), batch_size=4)
    assert answers(adapter, CONVERSATIONS)[0] == answers(opened(model_dir, 4), CONVERSATIONS)[0]


def test_images_in_later_turns_and_a_system_turn_are_seen(model_dir: Path) -> None:
    def asked(colour: str) -> list[dict[str, Any]]:
        picture = {"type": "image", "url": Image.new("RGB", (64, 64), colour)}
        return [
            {"role": "system", "content": [{"type": "text", "text": "What"}]},
            {"role": "user", "content": [{"type": "text", "text": "left ?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "right"}]},
            {"role": "user", "content": [picture, {"type": "text", "text": "green ?"}]},
        ]

    red, white = answers(opened(model_dir, 2), [asked("red"), asked("white")])
    assert red != white


def test_whole_encoding_equals_turn_by_turn_encoding(model_dir: Path) -> None:
    from interlace.model.chat import encode_messages, encode_whole
    from interlace.model.open import open_processor

    processor = open_processor(model_dir)
    for turns in CONVERSATIONS:
        by_turn, whole = encode_messages(processor, turns), encode_whole(processor, turns)
        for name, value in whole.items():
            assert torch.equal(value, by_turn[name]), name


def test_other_media_than_images_are_refused(model_dir: Path) -> None:
    turns = [{"role": "user", "content": [{"type": "video", "url": "film.mp4"}]}]
    with pytest.raises(InputError, match="'task' shows the model video"):
        answers(opened(model_dir, 1), [turns])


def test_ranking_answers_is_refused_with_a_clear_line(model_dir: Path) -> None:
    with pytest.raises(NotImplementedError, match="does not rank"):
        opened(model_dir, 1).loglikelihood([])
