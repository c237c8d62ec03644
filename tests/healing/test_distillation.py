"""The teacher's terms are their formulas, and do not depend on how a batch is split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plans import PLAN
from torch import Tensor
from training_runs import column, tune

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.healing.distillation import (
    DistilledLoss,
    anchors,
    divergence,
    state_errors,
    token_weights,
)
from interlace.healing.finetune import freeze_all_but
from interlace.model import answer_loss, chat
from interlace.model.decoder import decoder_layers
from interlace.model.open import open_model
from interlace.model.states import recorded
from interlace.params.healing import Finetune
from interlace.plan.record import Group
from interlace.training import packing


def slow_divergence(student: Tensor, teacher: Tensor, temperature: float) -> float:
    total = 0.0
    for ours, theirs in zip(student.double(), teacher.double(), strict=True):
        p, q = torch.softmax(theirs / temperature, 0), torch.softmax(ours / temperature, 0)
        total += sum(float(a * torch.log(a / b)) for a, b in zip(p, q, strict=True))
    return temperature**2 * total


@given(seed=st.integers(0, 2**16), temperature=st.sampled_from([0.5, 1.0, 2.0, 5.0]))
def test_the_divergence_is_the_sum_over_tokens(seed: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = 3 * torch.randn(2, 4, 7, generator=generator)
    value = float(divergence(ours, theirs, temperature))
    assert value == pytest.approx(slow_divergence(ours, theirs, temperature), rel=1e-4, abs=1e-5)
    assert value >= 0
    assert float(divergence(ours, ours + 3.0, temperature)) == pytest.approx(0, abs=1e-4)


def test_half_precision_logits_are_compared_in_float32() -> None:
    ours, theirs = torch.randn(2, 5, 300, generator=torch.Generator().manual_seed(0)).bfloat16()
    value = divergence(ours, theirs)
    assert value.dtype == torch.float32
    assert torch.equal(value, divergence(ours.float(), theirs.float()))


def test_state_errors_are_means_over_anchors() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(2, 2, 2, 3, 4, generator=generator)  # [2, anchors, B, T, d]
    errors = state_errors(dict(enumerate(ours)), dict(enumerate(theirs)))
    for row, token in ((row, token) for row in range(2) for token in range(3)):
        slow = [
            float((ours[a, row, token] - theirs[a, row, token]).norm() ** 2)
            / float(theirs[a, row, token].norm() ** 2)
            for a in range(2)
        ]
        assert float(errors[row, token]) == pytest.approx(sum(slow) / 2)


@pytest.fixture
def samples(processor: Any) -> list[chat.Inputs]:
    return [chat.encode_training(processor, row) for row in models.rows(4)]


@pytest.fixture
def batch(samples: list[chat.Inputs]) -> chat.Inputs:
    return chat.collate(samples, pad_token_id=0)


@pytest.fixture
def student(project: Path) -> Any:
    model = open_model(project / "artifacts/pruned")
    freeze_all_but(model, PLAN.tuned_positions)
    return model


@pytest.fixture
def teacher(dense_dir: Path) -> Any:
    return open_model(dense_dir)


def test_a_sample_weighs_as_much_in_a_packed_row_as_in_a_padded_one(
    samples: list[chat.Inputs], dense_dir: Path
) -> None:
    sizes = [(int((s["labels"][1:] != chat.IGNORED).sum()), s["labels"].shape[0]) for s in samples]
    padded = chat.collate(samples, pad_token_id=0)
    weights = token_weights(padded, padded["labels"])
    for row, (answers, tokens) in enumerate(sizes):
        assert weights[row, :tokens].tolist() == pytest.approx([answers / tokens] * tokens)
        assert not weights[row, tokens:].any()
    packed = packing.pack(samples, packing.sample_positions(Checkpoint(dense_dir)), pad_token_id=0)
    weights = token_weights(packed, packed["labels"])
    expected = sorted(answers / tokens for answers, tokens in sizes for _ in range(tokens))
    assert sorted(weights[weights > 0].tolist()) == pytest.approx(expected)


def recorded_outputs(model: Any) -> Any:
    return recorded(model, outputs=range(len(decoder_layers(model))))


def without_labels(batch: chat.Inputs) -> chat.Inputs:
    return {name: value for name, value in batch.items() if name != "labels"}


def slow_loss(student: Any, teacher: Any, batch: chat.Inputs, params: Finetune) -> Tensor:
    """The loss by autograd through all logits at once."""
    labels, inputs = batch["labels"], without_labels(batch)
    predicts = labels[:, 1:] != chat.IGNORED
    with recorded_outputs(student) as ours, recorded_outputs(teacher) as theirs:
        logits = student(**inputs).logits[:, :-1][predicts]
        with torch.no_grad():
            goals = teacher(**inputs).logits[:, :-1][predicts]
    errors = state_errors(
        {layer: ours.outputs[PLAN.keep.index(layer)] for layer in anchors(PLAN)},
        {layer: theirs.outputs[layer] for layer in anchors(PLAN)},
    )
    loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][predicts], reduction="sum")
    loss = loss + params.distill_logits * divergence(logits, goals, params.temperature)
    return loss + params.distill_states * (errors * token_weights(inputs, labels)).sum()


@pytest.mark.parametrize(
    "terms",
    [
        {"distill_logits": 1.0, "temperature": 2.0},
        {"distill_states": 1.0},
        {"distill_logits": 2.0, "distill_states": 3.0},
    ],
)
def test_the_loss_and_its_gradient_are_the_formula(
    student: Any,
    teacher: Any,
    batch: chat.Inputs,
    monkeypatch: pytest.MonkeyPatch,
    terms: dict[str, float],
) -> None:
    monkeypatch.setattr(answer_loss, "CHUNK", 3)  # tokens whose logits are in memory at once
    weights, params = [w for w in student.parameters() if w.requires_grad], Finetune(**terms)
    loss = DistilledLoss(student, teacher, PLAN, params)(without_labels(batch), batch["labels"])
    expected = slow_loss(student, teacher, batch, params)
    added = float((expected - slow_loss(student, teacher, batch, Finetune())).detach())
    assert added > 1e-3
    assert float((loss - expected).detach()) == pytest.approx(0, abs=1e-3 * added)
    gradients = (torch.autograd.grad(value, weights) for value in (loss, expected))
    for ours, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-3, atol=1e-5 * float(slow.abs().max()))


def test_nothing_below_the_lowest_tuned_layer_has_a_graph(
    student: Any, teacher: Any, batch: chat.Inputs
) -> None:
    params = Finetune(distill_logits=1, distill_states=1)
    module, layers = DistilledLoss(student, teacher, PLAN, params), range(len(PLAN.keep))
    with recorded(student, inputs=layers) as ours, recorded_outputs(teacher) as theirs:
        module(without_labels(batch), batch["labels"])
    lowest = min(PLAN.tuned_positions)
    assert not any(state.requires_grad for state in theirs.outputs.values())
    assert [ours.inputs[i].requires_grad for i in layers] == [i > lowest for i in layers]


def test_a_distilled_run_does_not_depend_on_its_passes(project: Path, tmp_path: Path) -> None:
    distilled = {"distill_logits": 1.0, "distill_states": 1.0}
    tune(project, tmp_path / "reference", **distilled)
    expected = column(tmp_path / "reference/loss.csv")
    for changes in ({"micro_batch_size": 4}, {"gradient_checkpointing": False}, {"packing": False}):
        out = tmp_path / next(iter(changes))
        tune(project, out, **distilled, **changes)
        assert column(out / "loss.csv") == pytest.approx(expected, rel=1e-3), changes


@pytest.mark.parametrize("term", ["distill_logits", "distill_states"])
def test_either_term_alone_is_added_to_the_loss(
    project: Path, tuned_run: Path, tmp_path: Path, term: str
) -> None:
    tune(project, tmp_path, max_steps=1, **{term: 1.0})
    assert column(tmp_path / "loss.csv")[0] > column(tuned_run / "loss.csv")[0] + 1e-3


def test_anchors_are_the_groups_or_what_follows_a_tuned_layer() -> None:
    assert (PLAN.keep, PLAN.tune, anchors(PLAN)) == ([0, 1, 2, 4], [2, 4], [4])
    group = Group(kind="triplet", layers=(3, 4, 2), score=None, drop=(3,), tune=(4,), anchor=2)
    assert anchors(PLAN.model_copy(update={"groups": [group]})) == [2]
    above = PLAN.model_copy(update={"groups": [group], "tune": [4]})
    assert anchors(above) == [4]  # no tuned layer changes the output of layer 2
