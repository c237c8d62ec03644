"""Of every family: the modules between vision tower and decoder, and the decoder's norms."""

from __future__ import annotations

from typing import Any

import family_models
import pytest
import torch

from interlace.healing.finetune import freeze_all_but
from interlace.model.answer_loss import AnswerLoss
from interlace.model.chat import collate
from interlace.model.decoder import decoder_layers, decoder_prefix, norm_weights
from interlace.model.projector import projector_weights

DEEPSTACK = {"merger", "deepstack_merger_list"}
NEWLINE = {"multi_modal_projector", "image_newline"}
PROJECTORS = {  # others: multi_modal_projector
    "glm46v": {"merger"},
    "glm4v": {"merger"},
    "glm4v_moe": {"merger"},
    "granite4_vision": {"layerwise_projectors", "spatial_projectors", "image_newline"},
    "idefics2": {"connector"},
    "idefics3": {"connector"},
    "kimi_k25": {"mm_projector"},
    "llava_next": NEWLINE,
    "llava_onevision": NEWLINE,
    "ovis2": {"visual_embeddings_table"},
    "qwen2_5_vl": {"merger"},
    "qwen2_vl": {"merger"},
    "qwen3_5": {"merger"},
    "qwen3_5_moe": {"merger"},
    "qwen3_vl": DEEPSTACK,
    "qwen3_vl_moe": DEEPSTACK,
    "smolvlm": {"connector"},
}


@pytest.fixture(scope="module", params=family_models.TINY)
def name(request: Any) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str) -> Any:
    """The model with random weights, of which each matters to what it computes."""
    return family_models.build(family_models.TINY[name].config).eval()


with_images = pytest.mark.parametrize("name", family_models.WITH_IMAGES, indirect=True)
text_alone = pytest.mark.parametrize("name", family_models.TEXT, indirect=True)


def test_the_norms_are_all_weights_of_the_decoder_with_that_name(model: Any) -> None:
    root = decoder_prefix(model).removesuffix("layers")
    names = {name for name in norm_weights(model) if name.startswith(root)}
    named = {n for n, _ in model.named_parameters() if n.startswith(root) and "norm" in n}
    assert names == named == norm_weights(model).keys()
    assert len(names) > len(decoder_layers(model))


@with_images
def test_the_projector_is_all_between_tower_and_decoder(name: str, model: Any) -> None:
    names = [n.removeprefix("model.") for n in projector_weights(model)]
    modules = {n.removeprefix("visual.").partition(".")[0] for n in names}
    assert modules == PROJECTORS.get(name.partition(",")[0], {"multi_modal_projector"})


@with_images
def test_a_picture_reaches_the_decoder_through_the_projector_alone(name: str, model: Any) -> None:
    weights = projector_weights(model)
    picture, text = ({**sample} for sample in family_models.samples(name))
    for sample, learns in ((picture, True), (text, False)):
        freeze_all_but(model, [], ["projector"])
        batch = collate([sample], pad_token_id=0)
        loss = AnswerLoss(model)(batch, batch.pop("labels"))
        assert loss.requires_grad is learns
        if learns:
            gradients = torch.autograd.grad(loss, list(weights.values()))
            assert all(gradient.any() for gradient in gradients)
    model.requires_grad_(True)


@text_alone
def test_a_family_without_images_has_no_projector(model: Any) -> None:
    assert projector_weights(model) == {}
