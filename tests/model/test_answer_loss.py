"""The loss on answers and its gradient, against whole passes of really pruned models."""

from __future__ import annotations

import copy
from typing import Any

import models
import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from interlace.errors import InputError
from interlace.model import answer_loss
from interlace.model.answer_loss import layer_gradients, losses_without
from interlace.model.bypass import bypass, bypassed
from interlace.model.chat import IGNORED, Inputs, collate, encode_training
from interlace.model.decoder import decoder_layers, norm_and_head
from interlace.model.open import open_model

LAYERS, DEEPSTACK = 6, 3


def batch_of(processor: Any, *rows: dict[str, Any]) -> Inputs:
    return collate([encode_training(processor, row) for row in rows], pad_token_id=0)


@pytest.fixture(scope="module")
def padded(processor: Any) -> Inputs:
    """Six rows of different length, with none, one and two images, one and two answers."""
    return batch_of(processor, *models.rows(6))


def slow_loss(model: Any, batch: Inputs) -> torch.Tensor:
    """Sum of cross-entropies over answer tokens, row by row and token by token, in a whole pass."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    log_probabilities = model(**inputs, use_cache=False).logits.double().log_softmax(-1)
    total = torch.zeros((), dtype=torch.float64)
    for row, labels in enumerate(batch["labels"].tolist()):
        for t, label in enumerate(labels):
            if label != IGNORED:
                total = total - log_probabilities[row, t - 1, label]
    return total


def loss_of_pruned(model: Any, batch: Inputs, drop: list[int]) -> float:
    pruned = copy.deepcopy(model)
    bypass(pruned, drop)
    with torch.inference_mode():
        return slow_loss(pruned, batch).item()


def snapshot(model: Any) -> list[Any]:
    """All that a bypass changes."""
    text = model.config.get_text_config(decoder=True)
    numbers = [getattr(module, "layer_idx", None) for module in model.modules()]
    return [model.get_decoder().layers, list(model.get_decoder().layers), numbers, text.to_dict()]


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
def test_layers_may_be_gone_already(dense: Any, padded: Inputs, position: int) -> None:
    gone = [1, 4]
    living = [i for i in range(LAYERS) if i not in gone]
    with bypassed(dense, gone):
        [found] = losses_without(dense, padded, [position], DEEPSTACK)
    expected = loss_of_pruned(dense, padded, [*gone, living[position]])
    assert found == pytest.approx(expected, rel=1e-5)


def test_each_bypass_runs_only_the_layers_behind_it(dense: Any, padded: Inputs) -> None:
    runs: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda *_, i=i: runs.append(i))
        for i, layer in enumerate(decoder_layers(dense))
    ]
    losses_without(dense, padded, [3, 5], DEEPSTACK)
    for hook in hooks:
        hook.remove()
    assert runs == [*range(LAYERS), 4, 5]


def test_logits_exist_for_a_few_answer_tokens_at_a_time(
    dense: Any, padded: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = losses_without(dense, padded, [4], DEEPSTACK)
    sizes: list[int] = []
    made = answer_loss.logits_of

    def noting(model: Any, states: torch.Tensor) -> torch.Tensor:
        sizes.append(len(states))
        return made(model, states)

    monkeypatch.setattr(answer_loss, "logits_of", noting)
    monkeypatch.setattr(answer_loss, "CHUNK", 2)
    found = losses_without(dense, padded, [4], DEEPSTACK)
    assert found == pytest.approx(expected, rel=1e-6)
    assert max(sizes) == 4
    assert sum(sizes) == (padded["labels"] != IGNORED).sum()


@pytest.mark.parametrize("error", [False, True], ids=["ends well", "fails"])
def test_a_bypassed_model_is_restored(dense: Any, error: bool) -> None:
    before = snapshot(dense)
    try:
        with bypassed(dense, [0, 3]), bypassed(dense, [1]):
            assert len(decoder_layers(dense)) == LAYERS - 3
            if error:
                raise RuntimeError
    except RuntimeError:
        pass
    after = snapshot(dense)
    assert after == before
    assert after[0] is before[0]


def hooks_of(model: Any) -> list[list[int]]:
    return [[*m._forward_hooks, *m._forward_pre_hooks] for m in model.modules()]


def test_measuring_leaves_no_trace(dense: Any, padded: Inputs) -> None:
    before, hooks = snapshot(dense), hooks_of(dense)
    losses_without(dense, padded, range(LAYERS), DEEPSTACK)
    list(layer_gradients(dense, padded))
    assert snapshot(dense) == before
    assert hooks_of(dense) == hooks


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


def test_a_model_without_a_final_norm_is_refused(dense: Any) -> None:
    model = copy.deepcopy(dense)
    del model.get_decoder().norm
    with pytest.raises(InputError, match=r"Qwen3VL.*: no final norm at get_decoder\(\).norm"):
        norm_and_head(model)
