"""The loss of training: that of the model's own logits, with its exact gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import family_models
import models
import pytest
import torch
from training.test_packing import family_samples, plain_loss
from transformers import AutoModelForImageTextToText

from interlace.healing.finetune import freeze_all_but
from interlace.model import answer_loss as answer_gradient
from interlace.model import chat
from interlace.model.answer_loss import AnswerLoss
from interlace.model.chat import IGNORED, encode_training
from interlace.model.decoder import decoder_layers
from interlace.training.checkpointing import graph_layers, set_checkpointing


@pytest.fixture
def model(dense_dir: Path) -> Any:
    made = AutoModelForImageTextToText.from_pretrained(dense_dir, dtype=torch.float32).train()
    freeze_all_but(made, [3, 5])
    return made


@pytest.fixture(scope="module")
def batch(processor: Any) -> chat.Inputs:
    rows = [encode_training(processor, row) for row in models.rows(6)]
    return chat.collate(rows, pad_token_id=0)


def loss_of(model: Any, batch: chat.Inputs) -> torch.Tensor:
    inputs = dict(batch)
    return AnswerLoss(model)(inputs, inputs.pop("labels"))


@pytest.mark.parametrize("name", family_models.TINY)
def test_the_loss_is_that_of_every_family_s_own_logits(name: str, tmp_path: Path) -> None:
    folder = family_models.save(name, tmp_path / "model")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        for example in family_samples(name):
            found = loss_of(model, chat.collate([example], pad_token_id=2))
            torch.testing.assert_close(found, plain_loss(model, [example]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("chunk", [1, 3, 10_000])
def test_the_gradient_does_not_depend_on_how_many_logits_exist_at_once(
    model: Any, batch: chat.Inputs, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = [weight for weight in model.parameters() if weight.requires_grad]
    expected = torch.autograd.grad(loss_of(model, batch), tuned)
    monkeypatch.setattr(answer_gradient, "CHUNK", chunk)
    found = torch.autograd.grad(loss_of(model, batch), tuned)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_a_scaled_loss_has_a_scaled_gradient(model: Any, batch: chat.Inputs) -> None:
    tuned = [weight for weight in model.parameters() if weight.requires_grad]
    once = torch.autograd.grad(loss_of(model, batch), tuned)
    half = torch.autograd.grad(loss_of(model, batch) / 2, tuned)
    assert all(torch.allclose(a / 2, b, rtol=1e-4, atol=1e-7) for a, b in zip(once, half))  # noqa: B905


def test_a_batch_without_answers_has_no_loss_and_no_gradient(
    model: Any, batch: chat.Inputs
) -> None:
    silent = batch | {"labels": torch.full_like(batch["labels"], IGNORED)}
    loss = loss_of(model, silent)
    loss.backward()
    assert loss == 0
    assert all(not w.grad.any() for w in model.parameters() if w.requires_grad)


@pytest.mark.parametrize("recomputed", [False, True])
def test_there_is_no_graph_below_the_lowest_tuned_layer(
    model: Any, batch: chat.Inputs, recomputed: bool
) -> None:
    set_checkpointing(graph_layers(model, [3, 5]), recomputed)
    graphs: dict[str, bool] = {}

    def note(name: str) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            state = output[0] if isinstance(output, tuple) else output
            graphs[name] = state.requires_grad

        return hook

    for i, layer in enumerate(decoder_layers(model)):
        layer.register_forward_hook(note(f"layer {i}"))
    model.model.visual.merger.register_forward_hook(note("vision tower"))
    model.get_input_embeddings().register_forward_hook(note("embeddings"))
    loss_of(model, batch)
    assert [name for name, found in graphs.items() if found] == ["layer 3", "layer 4", "layer 5"]


@pytest.mark.parametrize("recomputed", [False, True])
def test_nothing_is_saved_below_the_lowest_tuned_layer(
    model: Any, batch: chat.Inputs, recomputed: bool
) -> None:
    set_checkpointing(graph_layers(model, [3, 5]), recomputed)
    saved: list[int] = []
    at: dict[int, int] = {}
    for i, layer in enumerate(decoder_layers(model)):
        layer.register_forward_pre_hook(lambda *_, i=i: at.update({i: len(saved)}))
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor.numel()) or tensor, lambda tensor: tensor
    ):
        loss_of(model, batch)
    assert at[3] == 0
    assert len(saved) > at[4] > 0


def test_recomputing_saves_fewer_tensors(model: Any, batch: chat.Inputs) -> None:
    sizes = {}
    for on in (False, True):
        set_checkpointing(graph_layers(model, [3, 5]), on)
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, saved=saved: saved.append(tensor.numel()) or tensor, lambda t: t
        ):
            loss_of(model, batch)
        sizes[on] = sum(saved)
    assert sizes[True] < 0.3 * sizes[False]


def test_logits_exist_for_answer_tokens_only(
    model: Any, batch: chat.Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seen = answer_gradient.logits_of, []
    monkeypatch.setattr(
        answer_gradient, "logits_of", lambda m, states: seen.append(len(states)) or made(m, states)
    )
    loss_of(model, batch)
    assert sum(seen) == (batch["labels"] != IGNORED).sum()
