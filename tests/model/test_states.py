"""Hooks and `output_hidden_states`, against a walk through the decoder by hand."""

from __future__ import annotations

import math
from typing import Any

import models
import pytest
import torch

from interlace.model.bypass import decoder_layers
from interlace.model.chat import Inputs, collate, encode_prompt
from interlace.model.states import first_not_finite, reference_states, residual_states, true_states

LAYERS = 6


@pytest.fixture(scope="module")
def with_image(processor: Any) -> Inputs:
    return collate([encode_prompt(processor, models.row(1, images=2))], pad_token_id=0)


@torch.inference_mode()
def states_by_hand(model: Any, batch: Inputs) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Walk through the decoder, adding the visual features after its first layers."""
    base, decoder = model.model, model.model.language_model
    vision = base.get_image_features(batch["pixel_values"], batch["image_grid_thw"])
    is_image = batch["input_ids"] == model.config.image_token_id
    state = base.get_input_embeddings()(batch["input_ids"]).clone()
    state[is_image] = torch.cat(vision.pooler_output)
    positions = base.compute_3d_position_ids(
        input_ids=batch["input_ids"],
        inputs_embeds=state,
        image_grid_thw=batch["image_grid_thw"],
        attention_mask=batch["attention_mask"],
        mm_token_type_ids=batch["mm_token_type_ids"],
    )
    rotation = decoder.rotary_emb(state, positions)
    inputs, outputs = [], []
    for i, layer in enumerate(decoder.layers):
        inputs.append(state.clone())
        state = layer(state, attention_mask=None, position_embeddings=rotation)
        outputs.append(state.clone())
        if i < len(vision.deepstack_features):
            state = state.clone()
            state[is_image] += torch.cat(vision.deepstack_features[i])
    return inputs, outputs


@pytest.mark.parametrize("side", [0, 1], ids=["inputs", "outputs"])
def test_hooks_see_the_true_states(dense: Any, with_image: Inputs, side: int) -> None:
    with torch.inference_mode():
        found = residual_states(dense, with_image)[side]
    expected = states_by_hand(dense, with_image)[side]
    for i in range(LAYERS):
        torch.testing.assert_close(found[i], expected[i], rtol=1e-5, atol=1e-5)


def test_visual_features_lie_between_the_first_three_layers(dense: Any, with_image: Inputs) -> None:
    with torch.inference_mode():
        inputs, outputs = residual_states(dense, with_image)
    same = [torch.equal(inputs[i + 1], outputs[i]) for i in range(LAYERS - 1)]
    assert same == [False, False, False, True, True]


def test_no_hook_is_left_behind(dense: Any, with_image: Inputs) -> None:
    def hooks() -> list[int]:
        return [
            handle
            for layer in decoder_layers(dense)
            for handle in (*layer._forward_hooks, *layer._forward_pre_hooks)
        ]

    before = hooks()  # transformers leaves its own where hidden states were once asked for
    with pytest.raises(RuntimeError), true_states(dense):
        raise RuntimeError
    assert hooks() == before


def test_reference_states_are_those_of_output_hidden_states(dense: Any, with_image: Inputs) -> None:
    with torch.inference_mode():
        inputs, outputs = reference_states(dense, with_image)
        states = dense.model(**with_image, output_hidden_states=True).hidden_states
    assert len(inputs) == len(outputs) == LAYERS - 1
    for i in range(LAYERS - 1):
        torch.testing.assert_close(inputs[i], states[i])
        torch.testing.assert_close(outputs[i], states[i + 1])


def finite_states() -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Inputs and outputs of four layers [2, 3, 8], and what is attended: all but one token."""
    states = torch.randn(2, 4, 2, 3, 8, generator=torch.Generator().manual_seed(0))
    attended = torch.ones(2, 3, dtype=torch.bool)
    attended[0, 2] = False
    return list(states[0]), list(states[1]), attended


def test_finite_states_are_finite() -> None:
    assert first_not_finite(*finite_states()) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("side", ["input", "output"])
def test_the_first_state_that_is_not_finite_is_named(value: float, layer: int, side: str) -> None:
    inputs, outputs, attended = finite_states()
    (inputs if side == "input" else outputs)[layer][1, 2, 5] = value
    for later in (*inputs[layer + 1 :], *outputs[layer + 1 :]):
        later[:] = math.nan
    assert first_not_finite(inputs, outputs, attended) == (1, layer, side)


def test_padding_may_hold_anything() -> None:
    inputs, outputs, attended = finite_states()
    inputs[1][0, 2] = math.nan
    assert first_not_finite(inputs, outputs, attended) is None
