"""The loss on answers and its gradient, against full passes of really pruned models."""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

import family_models
import models
import pytest
import torch
from answered_samples import loss_of_pruned, slow_loss, snapshot
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from interlace.errors import InputError
from interlace.healing.finetune import freeze_all_but
from interlace.model import answer_loss
from interlace.model.answer_loss import AnswerLoss, layer_gradients, losses_without
from interlace.model.bypass import bypassed
from interlace.model.chat import IGNORED, Inputs, collate, encode_training
from interlace.model.decoder import decoder_layers, norm_and_head
from interlace.model.open import open_model
from interlace.model.states import hooked
from interlace.training.checkpointing import graph_layers, set_checkpointing

LAYERS, DEEPSTACK = 6, 3


@pytest.fixture(scope="module")
def padded(processor: Any) -> Inputs:
    """Six rows of different length, with none, one and two images, one and two answers."""
    rows = [encode_training(processor, row) for row in models.rows(6)]
    return collate(rows, pad_token_id=0)


@pytest.mark.parametrize("position", range(LAYERS))
def test_the_loss_without_a_layer_is_that_of_the_pruned_model(
    dense: Any, padded: Inputs, position: int
) -> None:
    [found] = losses_without(dense, padded, [position], DEEPSTACK)
    assert found == pytest.approx(loss_of_pruned(dense, padded, [position]), rel=1e-5)


def test_the_layers_matter_to_the_loss(dense: Any, padded: Inputs) -> None:
    losses = losses_without(dense, padded, range(LAYERS), DEEPSTACK)
    assert all(abs(a - b) > 1e-3 for i, a in enumerate(losses) for b in losses[:i])


def test_a_bypass_moves_visual_features_to_other_layers(dense: Any, padded: Inputs) -> None:
    [unmoved] = losses_without(dense, padded, [1], deepstack_layers=0)
    assert unmoved != pytest.approx(loss_of_pruned(dense, padded, [1]), rel=1e-4)


@pytest.mark.parametrize("position", range(LAYERS - 2))
def test_some_layers_may_be_removed_already(dense: Any, padded: Inputs, position: int) -> None:
    removed = [1, 4]
    remaining = [i for i in range(LAYERS) if i not in removed]
    with bypassed(dense, removed):
        [found] = losses_without(dense, padded, [position], DEEPSTACK)
    expected = loss_of_pruned(dense, padded, [*removed, remaining[position]])
    assert found == pytest.approx(expected, rel=1e-5)


def test_each_bypass_runs_only_the_layers_after_it(dense: Any, padded: Inputs) -> None:
    runs: list[int] = []
    with hooked(dict(enumerate(decoder_layers(dense))), on_call=lambda i, *_: runs.append(i)):
        losses_without(dense, padded, [3, 5], DEEPSTACK)
    assert runs == [*range(LAYERS), 4, 5]


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
    expected = losses_without(dense, padded, [4], DEEPSTACK)
    sizes.clear()
    monkeypatch.setattr(answer_loss, "CHUNK", 2)
    found = losses_without(dense, padded, [4], DEEPSTACK)
    assert found == pytest.approx(expected, rel=1e-6)
    assert max(sizes) == 4
    assert sum(sizes) == (padded["labels"] != IGNORED).sum()


@pytest.mark.parametrize("error", [False, True], ids=["ends well", "fails"])
def test_a_bypassed_model_is_restored(dense: Any, error: bool) -> None:
    original = snapshot(dense)
    with (
        suppress(RuntimeError),
        bypassed(dense, [0, 3]),
        bypassed(dense, [1]),
    ):
        assert len(decoder_layers(dense)) == LAYERS - 3
        if error:
            raise RuntimeError
    assert snapshot(dense) == original
    assert dense.get_decoder().layers is original[0]


def test_measuring_leaves_no_trace(dense: Any, padded: Inputs) -> None:
    original = snapshot(dense)
    losses_without(dense, padded, range(LAYERS), DEEPSTACK)
    list(layer_gradients(dense, padded))
    assert snapshot(dense) == original


@pytest.fixture(scope="module")
def sliding() -> Any:
    """A Qwen2.5-VL whose layers see all tokens and the last three of them in turn."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    layers = {
        "num_hidden_layers": 4,
        "layer_types": ["full_attention", "sliding_attention"] * 2,
        "use_sliding_window": True,
        "sliding_window": 3,
    }
    text = sizes | layers | {"vocab_size": 64, "intermediate_size": 48, "rope_parameters": rope}
    vision = {"depth": 1, "hidden_size": 24, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return Qwen2_5_VLForConditionalGeneration(config).eval()


@pytest.mark.parametrize("position", range(4))
def test_layers_keep_their_own_masks(sliding: Any, position: int) -> None:
    ids = torch.arange(24).reshape(2, 12)
    labels = ids.where(torch.arange(12) > 5, IGNORED)
    batch = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}
    [found] = losses_without(sliding, batch, [position], 0)
    assert found == pytest.approx(loss_of_pruned(sliding, batch, [position]), rel=1e-5)
    assert sliding.config.text_config.layer_types == ["full_attention", "sliding_attention"] * 2


def test_gradients_are_those_of_one_backward_pass(
    dense_dir: Any, dense: Any, padded: Inputs
) -> None:
    model = open_model(dense_dir, dtype="float32")
    slow_loss(model, padded).backward()
    seen = []
    for layer, gradients in layer_gradients(dense, padded):
        seen.append(layer)
        expected = dict(decoder_layers(model)[layer].named_parameters())
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name].grad, rtol=1e-3, atol=1e-4)
    assert seen == list(reversed(range(LAYERS)))


def test_gradients_do_not_depend_on_how_many_logits_exist_at_once(
    dense: Any, padded: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = dict(layer_gradients(dense, padded))[0]
    monkeypatch.setattr(answer_loss, "CHUNK", 2)
    found = dict(layer_gradients(dense, padded))[0]
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("required", [False, True])
def test_taking_gradients_changes_no_weight_s_state(
    dense_dir: Any, padded: Inputs, required: bool
) -> None:
    model = open_model(dense_dir, dtype="float32").requires_grad_(required)
    list(layer_gradients(model, padded))
    weights = list(model.parameters())
    assert all(w.requires_grad is required and w.grad is None for w in weights)


@pytest.fixture
def model(dense_dir: Path) -> Any:
    """The model with two tuned layers."""
    trained = open_model(dense_dir, dtype="float32").train()
    freeze_all_but(trained, [3, 5])
    return trained


def loss_of(model: Any, batch: Inputs) -> torch.Tensor:
    inputs = dict(batch)
    return AnswerLoss(model)(inputs, inputs.pop("labels"))


def gradients(model: Any, loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
    tuned = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.autograd.grad(loss, tuned)


@pytest.mark.parametrize("name", family_models.TINY)
def test_the_loss_of_training_is_that_of_every_family_s_logits(name: str, tmp_path: Path) -> None:
    model = open_model(family_models.save(name, tmp_path / "model"), dtype="float32")
    with torch.no_grad():
        for example in family_models.samples(name):
            batch = collate([example], pad_token_id=2)
            assert loss_of(model, batch).item() == pytest.approx(
                slow_loss(model, batch).item(), rel=1e-5
            )


@pytest.mark.parametrize("chunk", [1, 3, 10_000])
def test_the_gradient_of_training_does_not_depend_on_how_many_logits_exist_at_once(
    model: Any, padded: Inputs, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = gradients(model, slow_loss(model, padded))
    monkeypatch.setattr(answer_loss, "CHUNK", chunk)
    found = gradients(model, loss_of(model, padded))
    for fast, slow in zip(found, expected, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4 * float(slow.abs().max()))


def test_a_scaled_loss_has_a_scaled_gradient(model: Any, padded: Inputs) -> None:
    full = gradients(model, loss_of(model, padded))
    half = gradients(model, loss_of(model, padded) / 2)
    for a, b in zip(full, half, strict=True):
        torch.testing.assert_close(a / 2, b, rtol=1e-4, atol=1e-7)


def test_a_batch_without_answers_has_no_loss_and_no_gradient(model: Any, padded: Inputs) -> None:
    loss = loss_of(model, padded | {"labels": torch.full_like(padded["labels"], IGNORED)})
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients(model, loss))


def test_training_computes_logits_of_answer_tokens_only(
    model: Any, padded: Inputs, sizes: list[int]
) -> None:
    loss_of(model, padded)
    assert sum(sizes) == (padded["labels"] != IGNORED).sum()


@pytest.mark.parametrize("recomputed", [False, True])
def test_there_is_no_graph_below_the_lowest_tuned_layer(
    model: Any, padded: Inputs, recomputed: bool
) -> None:
    set_checkpointing(graph_layers(model, [3, 5]), recomputed)
    modules = dict(enumerate(decoder_layers(model)))
    modules |= {"vision": model.model.visual.merger, "embeddings": model.get_input_embeddings()}
    states: dict[Any, torch.Tensor] = {}
    with hooked(modules, on_return=states.__setitem__):
        loss_of(model, padded)
    assert [name for name, state in states.items() if state.requires_grad] == [3, 4, 5]


@pytest.mark.parametrize("recomputed", [False, True])
def test_nothing_is_saved_below_the_lowest_tuned_layer(
    model: Any, padded: Inputs, recomputed: bool
) -> None:
    set_checkpointing(graph_layers(model, [3, 5]), recomputed)
    saved: list[int] = []
    at: dict[int, int] = {}
    with (
        hooked(
            dict(enumerate(decoder_layers(model))),
            on_call=lambda layer, *_: at.update({layer: len(saved)}),
        ),
        torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: saved.append(tensor.numel()) or tensor, lambda tensor: tensor
        ),
    ):
        loss_of(model, padded)
    assert at[3] == 0
    assert len(saved) > at[4] > 0


def test_recomputing_saves_fewer_tensors(model: Any, padded: Inputs) -> None:
    sizes = {}
    for on in (False, True):
        set_checkpointing(graph_layers(model, [3, 5]), on)
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, saved=saved: saved.append(tensor.numel()) or tensor, lambda t: t
        ):
            loss_of(model, padded)
        sizes[on] = sum(saved)
    assert sizes[True] < 0.3 * sizes[False]


def test_a_model_without_a_final_norm_is_refused(dense: Any) -> None:
    model = copy.deepcopy(dense)
    del model.get_decoder().norm
    with pytest.raises(InputError, match=r"Qwen3VL.*: no final norm at get_decoder\(\).norm"):
        norm_and_head(model)
