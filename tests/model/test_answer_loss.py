"""The loss on answers and its gradient, against full passes of really pruned models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import family_models
import models
import pytest
import torch
from answered_samples import slow_loss, snapshot

from interlace.errors import InputError
from interlace.healing.finetune import freeze_all_but
from interlace.model import answer_loss
from interlace.model.answer_loss import AnswerLoss, layer_gradients
from interlace.model.bypass import bypassed
from interlace.model.chat import IGNORED, Inputs, collate, encode_training
from interlace.model.decoder import decoder_layers, norm_and_head
from interlace.model.open import open_model
from interlace.model.pruned_losses import losses_without
from interlace.model.states import hooked
from interlace.training.checkpointing import graph_layers, set_checkpointing

LAYERS, DEEPSTACK = 6, 3


@pytest.fixture(scope="module")
def padded(processor: Any) -> Inputs:
    """Six rows of different length, with none, one and two images, one and two answers."""
    rows = [encode_training(processor, row) for row in models.rows(6)]
    return collate(rows, pad_token_id=0)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of answer tokens whose logits are computed at once."""
    logits_of, sizes = answer_loss.logits_of, []

    def noting(model: Any, states: torch.Tensor) -> torch.Tensor:
        sizes.append(len(states))
        return logits_of(model, states)

    monkeypatch.setattr(answer_loss, "logits_of", noting)
    return sizes


def test_logits_exist_for_a_few_answer_tokens_at_a_time(
    dense: Any, padded: Inputs, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = losses_without(dense, padded, [(4,)], DEEPSTACK)
    sizes.clear()
    monkeypatch.setattr(answer_loss, "CHUNK", 2)
    assert losses_without(dense, padded, [(4,)], DEEPSTACK) == pytest.approx(expected, rel=1e-6)
    assert max(sizes) == 4
    assert sum(sizes) == (padded["labels"] != IGNORED).sum()


def test_a_bypassed_model_is_restored_after_an_error(dense: Any) -> None:
    original = snapshot(dense)
    with pytest.raises(RuntimeError), bypassed(dense, [0, 3]), bypassed(dense, [1]):
        assert len(decoder_layers(dense)) == LAYERS - 3
        raise RuntimeError
    assert snapshot(dense) == original
    assert dense.get_decoder().layers is original[0]


@pytest.mark.parametrize("chunk", [2, answer_loss.CHUNK])
def test_gradients_are_those_of_one_backward_pass(
    dense_dir: Path, dense: Any, padded: Inputs, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(dense_dir, dtype="float32")
    slow_loss(model, padded).backward()
    monkeypatch.setattr(answer_loss, "CHUNK", chunk)
    gradients_by_layer = dict(layer_gradients(dense, padded))
    assert list(gradients_by_layer) == list(reversed(range(LAYERS)))
    for layer, gradients in gradients_by_layer.items():
        expected = dict(decoder_layers(model)[layer].named_parameters())
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name].grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("required", [False, True])
def test_measuring_leaves_no_trace(dense_dir: Path, padded: Inputs, required: bool) -> None:
    model = open_model(dense_dir, dtype="float32").requires_grad_(required)
    original = snapshot(model)
    losses_without(model, padded, [(layer,) for layer in range(LAYERS)], DEEPSTACK)
    list(layer_gradients(model, padded))
    assert snapshot(model) == original
    assert all(w.requires_grad is required and w.grad is None for w in model.parameters())


@pytest.fixture
def model(dense_dir: Path) -> Any:
    """The model with two tuned layers."""
    trained = open_model(dense_dir, dtype="float32").train()
    freeze_all_but(trained, [3, 5])
    return trained


def loss_of(model: Any, batch: Inputs) -> torch.Tensor:
    inputs = dict(batch)
    return AnswerLoss(model)(inputs, inputs.pop("labels"))


def tuned_gradients(model: Any, loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
    tuned = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.autograd.grad(loss, tuned)


@pytest.mark.parametrize("name", family_models.WITH_LOGITS)
def test_the_loss_of_training_is_that_of_every_family_s_logits(name: str, tmp_path: Path) -> None:
    model = open_model(family_models.save(name, tmp_path / "model"), dtype="float32")
    with torch.no_grad():
        for example in family_models.samples(name):
            batch = collate([example], pad_token_id=2)
            expected = slow_loss(model, batch).item()
            assert loss_of(model, batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 10_000])
@pytest.mark.parametrize("scale", [1, 0.5])
def test_the_gradient_of_training_is_that_of_all_logits(
    model: Any,
    padded: Inputs,
    sizes: list[int],
    chunk: int,
    scale: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = tuned_gradients(model, slow_loss(model, padded) * scale)
    monkeypatch.setattr(answer_loss, "CHUNK", chunk)
    gradients = tuned_gradients(model, loss_of(model, padded) * scale)
    for fast, slow in zip(gradients, expected, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4 * float(slow.abs().max()))
    assert max(sizes) <= chunk
    assert sum(sizes) == (padded["labels"] != IGNORED).sum()


@pytest.mark.parametrize("chunk", [1, 3, 10_000])
def test_the_gradient_of_a_trained_head_is_that_of_all_logits(
    model: Any, padded: Inputs, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 1.1)
    expected = tuned_gradients(model, slow_loss(model, padded) * 0.5)
    monkeypatch.setattr(answer_loss, "CHUNK", chunk)
    gradients = tuned_gradients(model, loss_of(model, padded) * 0.5)
    assert len(gradients) == 2 * 11 + 1
    for fast, slow in zip(gradients, expected, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4 * float(slow.abs().max()))


def test_a_batch_without_answers_has_no_loss_and_no_gradient(model: Any, padded: Inputs) -> None:
    loss = loss_of(model, padded | {"labels": torch.full_like(padded["labels"], IGNORED)})
    assert loss == 0
    assert not any(gradient.any() for gradient in tuned_gradients(model, loss))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_there_is_no_graph_below_the_lowest_tuned_layer(
    model: Any, padded: Inputs, checkpointing: bool
) -> None:
    set_checkpointing(graph_layers(model), checkpointing)
    modules = dict(enumerate(decoder_layers(model)))
    modules |= {"vision": model.model.visual.merger, "embeddings": model.get_input_embeddings()}
    states: dict[Any, torch.Tensor] = {}
    with hooked(modules, on_return=states.__setitem__):
        loss_of(model, padded)
    assert [name for name, state in states.items() if state.requires_grad] == [3, 4, 5]


def test_a_model_without_a_final_norm_is_refused(dense: Any) -> None:
    model = copy.deepcopy(dense)
    del model.get_decoder().norm
    with pytest.raises(InputError, match=r"Qwen3VL.*no final norm at get_decoder\(\).norm"):
        norm_and_head(model)
