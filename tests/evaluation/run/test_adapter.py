from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models import row, rows
from PIL import Image

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.model.chat import chat_messages, encode_messages, encode_training, encode_whole
from interlace.model.row_losses import row_losses
from interlace.model.sampling import Sampling
from interlace.params.evaluating import Evaluate

pytestmark = pytest.mark.usefixtures("lmms_eval")

CONVERSATIONS = [chat_messages(example)[:-1] for example in rows(11)]


def open_adapter(checkpoint: Checkpoint, batch_size: int = 4) -> Any:
    from interlace.evaluation.run import adapter

    return adapter.open_adapter(checkpoint, Evaluate(batch_size=batch_size))


def answers(
    adapter: Any,
    conversations: list[Any] = CONVERSATIONS,
    *,
    longest: int = 8,
    until: tuple[str, ...] = (),
    more: Callable[[int], dict[str, Any]] = lambda index: {},
) -> list[str]:
    """Answer conversations; `more` returns further settings of the request at an index."""
    adapter.task_dict = {"task": {"test": conversations}}
    settings = {"max_new_tokens": longest, "until": list(until)}
    requests = [
        SimpleNamespace(
            args=(str(turns[-1]), lambda t: t, settings | more(index), index, "task", "test")
        )
        for index, turns in enumerate(conversations)
    ]
    return adapter.generate_until(requests)


@pytest.fixture
def adapter(checkpoint: Checkpoint) -> Any:
    return open_adapter(checkpoint)


def test_batches_and_windows_do_not_change_answers(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one = answers(open_adapter(checkpoint, 1))
    assert len(set(one_by_one)) > 2  # else equality would say little
    for batch_size in (2, 4, 16):
        assert answers(open_adapter(checkpoint, batch_size)) == one_by_one
    monkeypatch.setattr("interlace.evaluation.run.adapter.FREE_PART", 2**62)
    for name in ("WINDOW_BATCHES", "WINDOW_BYTES"):
        monkeypatch.setattr(f"interlace.evaluation.run.adapter.{name}", 1)
        assert answers(open_adapter(checkpoint, 3)) == one_by_one


def test_images_opened_ahead_change_no_answer(checkpoint: Checkpoint) -> None:
    def opened_ahead(workers: int) -> list[str]:
        opened = open_adapter(checkpoint)
        opened.workers = workers
        return answers(opened)

    assert opened_ahead(2) == opened_ahead(0)


@pytest.mark.parametrize("longest", [1, 2, 8])
@pytest.mark.parametrize("early", [False, True], ids=["model's end", "early end"])
def test_a_known_true_answer_changes_no_generated_answer(
    checkpoint: Checkpoint, early: bool, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choices behind the loss tell the greedy answer, or generation does."""
    adapter = open_adapter(checkpoint)
    texts = answers(adapter)
    if early:  # the first token of an answer ends it
        example = encode_training(adapter.processor, row(0, images=0))
        adapter.generator.end_ids |= {row_losses(adapter.model, [example])[0].choices[0]}
        adapter.model.generation_config.eos_token_id = sorted(adapter.generator.end_ids)
    expected = answers(adapter, longest=longest)
    conversations = []  # a true answer begins like the model's own: whole, in half, or not at all
    for number, (turns, text) in enumerate(zip(CONVERSATIONS, texts, strict=True)):
        answer = [text, text[: len(text) // 2] + "7", "left"][number % 3]
        content = [{"type": "text", "text": answer}]
        conversations.append([*turns, {"role": "assistant", "content": content}])
    adapter.conversations = {"task": lambda turns: turns}
    generated = []
    generate = adapter._generate
    monkeypatch.setattr(
        adapter, "_generate", lambda *batch: generated.extend(batch[0]) or generate(*batch)
    )
    assert answers(adapter, conversations, longest=longest) == expected
    assert len(generated) == 0 if longest == 1 else early <= (len(generated) < len(conversations))


def test_answers_equal_generation_without_the_adapter(adapter: Any, checkpoint: Checkpoint) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint.folder)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint.folder).eval()
    turns = chat_messages(row(3, images=2))[:1]
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    images = [item["image"] for item in turns[0]["content"] if item["type"] == "image"]
    inputs = processor(text=[text], images=images, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    new_tokens = tokens[:, inputs["input_ids"].shape[1] :]
    expected = processor.batch_decode(new_tokens, skip_special_tokens=True)
    assert answers(adapter, [turns]) == expected


def test_sampled_answers_repeat_by_their_seed_whatever_shares_their_batch(
    checkpoint: Checkpoint,
) -> None:
    def sampled(index: int) -> dict[str, Any]:
        return Sampling(1.0, 0.9, 50, 0.5).as_settings() | {"seed": 100 + index}

    def mixed(index: int) -> dict[str, Any]:
        return sampled(index) if index % 2 else {}

    adapter = open_adapter(checkpoint)
    greedy, drawn = answers(adapter), answers(adapter, more=sampled)
    assert answers(open_adapter(checkpoint, 1), more=sampled) == drawn
    assert answers(adapter, longest=4, more=sampled) != drawn
    pairs = zip(greedy, drawn, strict=True)
    expected = [pair[index % 2] for index, pair in enumerate(pairs)]
    assert answers(adapter, more=mixed) == expected
    other = answers(adapter, more=lambda index: sampled(index + 50))
    assert sum(a != b for a, b in zip(drawn, other, strict=True)) > len(drawn) / 2
    assert sum(a != b for a, b in zip(drawn, greedy, strict=True)) > len(drawn) / 2


def test_answers_end_at_the_first_stop_the_longest_and_the_end_token(adapter: Any) -> None:
    full = answers(adapter)
    stop = full[0][1]
    assert answers(adapter, until=(stop,)) == [answer.split(stop)[0] for answer in full]
    shorter = answers(adapter, longest=2)
    assert shorter != full
    assert all(long.startswith(short) for short, long in zip(shorter, full, strict=True))
    tokenizer = adapter.processor.tokenizer
    ids = tokenizer(full[0], add_special_tokens=False)["input_ids"]
    adapter.generator.end_ids = frozenset({ids[2]})
    assert adapter.generator.decode(ids) == tokenizer.decode(ids[: ids.index(ids[2])])


def test_a_checkpoint_that_samples_still_answers_greedily(
    adapter: Any, checkpoint: Checkpoint
) -> None:
    from transformers import GenerationConfig

    from interlace.evaluation.run.adapter import CheckpointAdapter

    model = open_adapter(checkpoint).model
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=5.0, repetition_penalty=3.0, eos_token_id=[1]
    )
    sampling = CheckpointAdapter(model, adapter.processor, batch_size=4)
    assert answers(sampling)[0] == answers(adapter)[0]


def test_images_in_later_turns_and_a_system_turn_are_seen(adapter: Any) -> None:
    def text(role: str, *images: dict[str, Any]) -> dict[str, Any]:
        return {"role": role, "content": [*images, {"type": "text", "text": "left ?"}]}

    def conversation(colour: str) -> list[dict[str, Any]]:
        image = {"type": "image", "url": Image.new("RGB", (64, 64), colour)}
        return [text("system"), text("user"), text("assistant"), text("user", image)]

    red, white = answers(adapter, [conversation("red"), conversation("white")])
    assert red != white


def test_encoding_as_a_whole_equals_encoding_turn_by_turn(adapter: Any) -> None:
    for turns in CONVERSATIONS:
        by_turn = encode_messages(adapter.processor, turns)
        for name, value in encode_whole(adapter.processor, turns).items():
            assert torch.equal(value, by_turn[name]), name


def test_media_other_than_images_are_refused(adapter: Any) -> None:
    turns = [{"role": "user", "content": [{"type": "video", "url": "film.mp4"}]}]
    with pytest.raises(InputError, match=r"'task'.*video"):
        answers(adapter, [turns])
