"""Packed rows are to every sample as if it were alone."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import family_models
import models
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from transformers import AutoConfig, AutoModelForImageTextToText

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.healing.finetune import freeze_all_but
from interlace.model import chat
from interlace.model.answer_loss import AnswerLoss
from interlace.model.chat import IGNORED, Inputs, encode_training
from interlace.model.linear_attention import separate_samples
from interlace.model.open import auto_model
from interlace.params.healing import Also
from interlace.training.checkpointing import graph_layers, set_checkpointing
from interlace.training.packing import first_fit_decreasing, pack, packs, sample_positions

TUNED = (3, 4)
# Families whose tokens read others by a convolution or see the tokens ahead.
PADDED = ("gemma3", "gpt_oss", "internvl, gpt_oss", "lfm2", "paligemma")


@pytest.fixture(scope="module")
def examples(processor: Any) -> list[Inputs]:
    """Samples with none, one and two images, of one and two turns, of all lengths."""
    return [encode_training(processor, row) for row in models.rows(9)]


@pytest.fixture(scope="module")
def positions(dense_dir: Path) -> Any:
    return sample_positions(Checkpoint(dense_dir))


def plain_loss(model: Any, examples: list[Inputs]) -> torch.Tensor:
    """Sum over answer tokens from all logits, one sample at a time."""
    total = torch.zeros(())
    for example in examples:
        batch = chat.collate([example], pad_token_id=0)
        labels = batch.pop("labels")
        logits = model(**batch, use_cache=False).logits.float()
        total = total + functional.cross_entropy(
            logits[0, :-1], labels[0, 1:], ignore_index=IGNORED, reduction="sum"
        )
    return total


def packed_loss(model: Any, batch: Inputs) -> torch.Tensor:
    inputs = dict(batch)
    return AnswerLoss(model)(inputs, inputs.pop("labels"))


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=20), extra=st.integers(0, 40))
def test_each_sample_is_in_a_row_and_no_two_rows_would_fit_into_one(
    lengths: list[int], extra: int
) -> None:
    capacity = max(lengths) + extra
    rows = first_fit_decreasing(lengths, capacity)
    assert sorted(sample for row in rows for sample in row) == list(range(len(lengths)))
    tokens = [sum(lengths[sample] for sample in row) for row in rows]
    assert all(0 < row_tokens <= capacity for row_tokens in tokens)
    assert all(a + b > capacity for a, b in combinations(tokens, 2))


@pytest.mark.parametrize("one_row", [False, True])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("also", [(), ("projector", "norms")], ids=["layers", "also projector"])
def test_the_loss_and_its_gradients_are_those_of_single_samples(
    dense_dir: Path,
    examples: list[Inputs],
    positions: Any,
    also: tuple[Also, ...],
    checkpointed: bool,
    one_row: bool,
) -> None:
    """The reference has a graph from the pixels on, all logits, and one sample at a time."""
    model = AutoModelForImageTextToText.from_pretrained(dense_dir, dtype=torch.float32).train()
    freeze_all_but(model, [*TUNED], also)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    model.requires_grad_(True)
    expected_loss = plain_loss(model, examples)
    expected = torch.autograd.grad(expected_loss, trained)
    freeze_all_but(model, [*TUNED], also)
    set_checkpointing(graph_layers(model), checkpointed)
    batch = pack(examples, positions, pad_token_id=0, one_row=one_row)
    padded = chat.collate(examples, pad_token_id=0)
    assert batch["input_ids"].numel() < 0.9 * padded["input_ids"].numel()
    loss = packed_loss(model, batch)
    torch.testing.assert_close(loss, expected_loss, rtol=2e-6, atol=0)
    for ours, reference in zip(torch.autograd.grad(loss, trained), expected, strict=True):
        scale = float(reference.abs().max())
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5 * scale)


def test_nothing_is_predicted_across_samples(examples: list[Inputs], positions: Any) -> None:
    labelled = [e | {"labels": e["input_ids"].clone()} for e in examples]
    batch = pack(labelled, positions, pad_token_id=0)
    starts = batch["position_ids"][0] == 0
    assert (batch["labels"][starts] == IGNORED).all()
    assert (batch["labels"] != IGNORED).sum() == sum(len(e["labels"]) - 1 for e in examples)


@pytest.mark.parametrize("name", family_models.TINY)
def test_a_family_that_packs_computes_what_it_computes_on_single_samples(
    name: str, tmp_path: Path
) -> None:
    folder = family_models.save(name, tmp_path / "model")
    config = AutoConfig.from_pretrained(folder)
    assert packs(config) is (name == "gemma3_text" or not name.startswith(PADDED))
    if not packs(config):
        pytest.skip("samples of this family are padded")
    model = auto_model(folder).from_pretrained(folder, dtype=torch.float32).eval()
    separate_samples(model)
    picture, text = family_models.samples(name)
    with torch.no_grad():
        expected = plain_loss(model, [text, picture, text])
        for one_row in (False, True):
            batch = pack(
                [text, picture, text],
                sample_positions(Checkpoint(folder)),
                pad_token_id=2,
                one_row=one_row,
            )
            torch.testing.assert_close(packed_loss(model, batch), expected, rtol=1e-5, atol=0)
