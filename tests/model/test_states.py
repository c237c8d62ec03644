"""Recorded states, against a walk through the decoder by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import models
import pytest
import torch

import interlace
from interlace.errors import ContractError
from interlace.model.chat import Inputs, collate, encode_prompt
from interlace.model.decoder import decoder_layers
from interlace.model.states import (
    first_not_finite,
    forward,
    hooked,
    normed_state,
    recorded,
    reference_states,
    residual_states,
    state_before,
)

LAYERS = 6


@pytest.fixture(scope="module")
def with_image(processor: Any) -> Inputs:
    return collate([encode_prompt(processor, models.row(1, images=2))], pad_token_id=0)


def states_by_hand(model: Any, batch: Inputs) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Walk through the decoder, adding the visual features after its first layers."""
    base, decoder = model.model, model.model.language_model
    vision = base.get_image_features(batch["pixel_values"], batch["image_grid_thw"])
    is_image = batch["input_ids"] == model.config.image_token_id
    state = base.get_input_embeddings()(batch["input_ids"]).clone()
    state[is_image] = torch.cat(vision.pooler_output)
    names = ("input_ids", "image_grid_thw", "attention_mask", "mm_token_type_ids")
    inputs_of_positions = {name: batch[name] for name in names}
    positions = base.compute_3d_position_ids(inputs_embeds=state, **inputs_of_positions)
    rotation = decoder.rotary_emb(state, positions)
    inputs, outputs = [], []
    for i, layer in enumerate(decoder.layers):
        inputs.append(state)
        state = layer(state, attention_mask=None, position_embeddings=rotation)
        outputs.append(state)
        if i < len(vision.deepstack_features):
            state = state.clone()
            state[is_image] += torch.cat(vision.deepstack_features[i])
    return inputs, outputs


@torch.inference_mode()
def test_hooks_see_the_true_states(dense: Any, with_image: Inputs) -> None:
    inputs, outputs = residual_states(dense, with_image)
    expected = states_by_hand(dense, with_image)
    torch.testing.assert_close((inputs, outputs), expected, rtol=1e-5, atol=1e-5)
    same = [torch.equal(inputs[i + 1], outputs[i]) for i in range(LAYERS - 1)]
    assert same == [False, False, False, True, True]  # visual features between the first three


@torch.inference_mode()
def test_reference_states_are_the_true_inputs(dense: Any, with_image: Inputs) -> None:
    inputs, outputs = reference_states(dense, with_image)
    expected, _ = states_by_hand(dense, with_image)
    torch.testing.assert_close(
        (inputs, outputs), (expected[:-1], expected[1:]), rtol=1e-5, atol=1e-5
    )
    true_inputs, _ = residual_states(dense, with_image)
    assert all(map(torch.equal, (*inputs, outputs[-1]), true_inputs))
    assert all(output is state for output, state in zip(outputs, inputs[1:], strict=False))


@torch.inference_mode()
def test_hidden_states_of_transformers_5_lack_the_visual_features(
    dense: Any, with_image: Inputs
) -> None:
    _, outputs = reference_states(dense, with_image)
    states = forward(dense, with_image, output_hidden_states=True).hidden_states
    same = [torch.equal(states[i + 1], outputs[i]) for i in range(LAYERS - 1)]
    assert same == [False, False, False, True, True]


@torch.inference_mode()
def test_a_layer_called_with_its_recorded_arguments_gives_its_output(
    dense: Any, with_image: Inputs
) -> None:
    with recorded(dense, inputs=[3, 4], outputs=[4], arguments=[4]) as recording:
        forward(dense, with_image)
    output = recording.arguments[4].output(decoder_layers(dense)[4], recording.inputs[4])
    assert torch.equal(output, recording.outputs[4])
    assert set(recording.inputs) == {3, 4} and set(recording.outputs) == {4}


@torch.inference_mode()
def test_a_pass_stops_before_a_module(dense: Any, with_image: Inputs) -> None:
    calls: list[int] = []
    layers = dict(enumerate(decoder_layers(dense)))
    with hooked(layers, on_call=lambda layer, *_: calls.append(layer)):
        state = state_before(dense, with_image, layers[4])
    assert calls == [0, 1, 2, 3, 4]
    assert torch.equal(state, residual_states(dense, with_image)[0][4])
    with pytest.raises(ContractError, match="does not call its Identity"):
        state_before(dense, with_image, torch.nn.Identity())


class Thinker(torch.nn.Module):
    """A model as transformers before 5.21 has some thinkers: it is its own base."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.whole = whole
        self.get_decoder = whole.get_decoder
        self.get_output_embeddings = whole.get_output_embeddings

    @property
    def base_model(self) -> Thinker:
        return self

    def forward(self, **inputs: Any) -> Any:
        return self.whole(**inputs)


@torch.inference_mode()
def test_the_state_before_the_head_needs_no_base_model(dense: Any, with_image: Inputs) -> None:
    expected = forward(dense, with_image).last_hidden_state
    for model in (dense, Thinker(dense)):
        assert torch.equal(normed_state(model, with_image), expected)


def test_no_hook_is_left_after_an_error(dense: Any, with_image: Inputs) -> None:
    def hooks() -> list[int]:
        return [
            handle
            for layer in decoder_layers(dense)
            for handle in (*layer._forward_hooks, *layer._forward_pre_hooks)
        ]

    earlier = hooks()  # transformers keeps its own once hidden states were requested
    layers = range(LAYERS)
    with pytest.raises(RuntimeError), recorded(dense, inputs=layers, outputs=layers):
        raise RuntimeError
    state_before(dense, with_image, decoder_layers(dense)[2])
    assert hooks() == earlier


def test_no_other_module_registers_hooks() -> None:
    package = Path(interlace.__file__).parent
    sources = {file.name: file.read_text(encoding="utf-8") for file in package.rglob("*.py")}
    assert [name for name, text in sources.items() if "register_forward" in text] == ["states.py"]


def finite_states() -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Inputs and outputs of four layers [2, 3, 8], and what is attended: all but one token."""
    states = torch.randn(2, 4, 2, 3, 8, generator=torch.Generator().manual_seed(0))
    attended = torch.ones(2, 3, dtype=torch.bool)
    attended[0, 2] = False
    return list(states[0]), list(states[1]), attended


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize("side", ["input", "output"])
def test_the_first_state_that_is_not_finite_is_named(value: float, layer: int, side: str) -> None:
    inputs, outputs, attended = finite_states()
    inputs[1][0, 2] = math.nan  # padding need not be finite
    assert first_not_finite(inputs, outputs, attended) is None
    (inputs if side == "input" else outputs)[layer][1, 2, 5] = value
    for later in (*inputs[layer + 1 :], *outputs[layer + 1 :]):
        later[:] = math.nan
    assert first_not_finite(inputs, outputs, attended) == (1, layer, side)
