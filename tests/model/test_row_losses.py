"""The loss of rows, against logits of each row alone, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import family_models
import models
import pytest
import torch
from answered_samples import logits, slow_loss

from interlace.errors import InputError
from interlace.model.bypass import bypassed
from interlace.model.chat import (
    IGNORED,
    Inputs,
    chat_messages,
    collate,
    encode_messages,
    encode_training,
)
from interlace.model.open import open_model
from interlace.model.row_losses import last_answer, prompt_of, row_losses


@pytest.fixture(scope="module")
def examples(processor: Any) -> list[Inputs]:
    """Rows of different length, with none, one and two images, one and two answers."""
    return [encode_training(processor, row) for row in models.rows(7)]


@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
def test_the_loss_of_each_row_is_that_of_its_own_logits(
    dense: Any, examples: list[Inputs], batch_tokens: int
) -> None:
    losses = row_losses(dense, examples, batch_tokens=batch_tokens)
    for example, loss in zip(examples, losses, strict=True):
        expected = slow_loss(dense, collate([example], pad_token_id=0)).item()
        assert loss.loss == pytest.approx(expected, rel=1e-5)
        labels = example["labels"].tolist()
        answer = [t for t, label in enumerate(labels) if label != IGNORED]
        first_choices = logits(dense, example)[0].argmax(-1).tolist()
        assert loss.tokens == tuple(labels[t] for t in answer)
        assert loss.choices == tuple(first_choices[t - 1] for t in answer)
        assert loss.correct == sum(first_choices[t - 1] == labels[t] for t in answer)


@pytest.mark.parametrize("name", family_models.WITH_LOGITS)
def test_the_loss_of_rows_is_that_of_every_family_s_logits(name: str, tmp_path: Path) -> None:
    model = open_model(family_models.save(name, tmp_path / "model"), dtype="float32")
    examples = family_models.samples(name)
    for example, loss in zip(examples, row_losses(model, examples, pad_token_id=2), strict=True):
        with torch.no_grad():
            expected = slow_loss(model, collate([example], pad_token_id=2)).item()
        assert loss.loss == pytest.approx(expected, rel=1e-5)


def test_a_bypassed_model_has_a_loss_of_its_own(dense: Any, examples: list[Inputs]) -> None:
    with bypassed(dense, [1, 4]):
        pruned = row_losses(dense, examples)
        expected = slow_loss(dense, collate(examples[:1], pad_token_id=0)).item()
    assert pruned[0].loss == pytest.approx(expected, rel=1e-5)
    assert pruned[0].loss != pytest.approx(row_losses(dense, examples[:1])[0].loss, rel=1e-3)


def test_only_the_last_answer_of_a_dialogue_counts(processor: Any) -> None:
    row = models.row(3, turns=3)
    example = encode_training(processor, row)
    (answered,) = torch.where(last_answer(example)["labels"] != IGNORED)
    labels = example["labels"][answered]
    begin = len(example["labels"]) - len(labels)
    assert answered.tolist() == list(range(begin, len(example["labels"])))
    answer = row["texts"][-1]["assistant"]
    assert processor.tokenizer.decode(labels).startswith(answer)
    assert "assistant" not in processor.tokenizer.decode(labels)
    single = encode_training(processor, row | {"texts": row["texts"][:1]})
    assert torch.equal(last_answer(single)["labels"], single["labels"])


def test_a_row_without_an_answer_is_refused(processor: Any, dense: Any) -> None:
    prompt = encode_training(processor, models.row(0))
    prompt["labels"] = torch.full_like(prompt["labels"], IGNORED)
    with pytest.raises(InputError, match="row 1: no answer token"):
        row_losses(dense, [encode_training(processor, models.row(1)), prompt])


def test_a_row_cut_before_its_last_answer_is_its_prompt(processor: Any) -> None:
    """The loss is measured after the very tokens that generation starts from."""
    for row in models.rows(4):
        example = encode_training(processor, row)
        expected = encode_messages(processor, chat_messages(row)[:-1])
        del expected["labels"]
        for cut in (prompt_of(example), prompt_of(last_answer(example))):
            assert cut.keys() == expected.keys()
            assert all(torch.equal(cut[name], expected[name]) for name in cut)


def test_a_loss_that_is_not_finite_is_refused(dense_dir: Path, examples: list[Inputs]) -> None:
    model = open_model(dense_dir, dtype="float16")
    with torch.no_grad():
        model.lm_head.weight[5] = torch.inf
    with pytest.raises(InputError, match="not finite in float16; set dtype to float32 or bfloat16"):
        row_losses(model, examples)
