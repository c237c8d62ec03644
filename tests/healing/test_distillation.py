"""The teacher's terms are what the formulas say, and do not depend on how a batch is split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import pytest
import torch
from healing.test_finetune import curve, project
from healing.test_local import healed
from hypothesis import given
from hypothesis import strategies as st
from pruning.test_export import PLAN
from torch import Tensor

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.healing.distillation import (
    DistilledLoss,
    anchors,
    divergence,
    state_errors,
    token_weights,
)
from interlace.healing.finetune import freeze_all_but
from interlace.model import answer_loss as answer_gradient
from interlace.model import chat
from interlace.model.answer_loss import AnswerLoss
from interlace.model.decoder import decoder_layers
from interlace.model.open import open_model
from interlace.model.states import recorded
from interlace.params.healing import Finetune
from interlace.plan.record import Group
from interlace.training import packing

__all__ = ["project"]
END_TO_END = {"local_steps": 0, "max_steps": 6, "learning_rate": 1e-2}


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
    found = float(divergence(ours, theirs, temperature))
    assert found == pytest.approx(slow_divergence(ours, theirs, temperature), rel=1e-4, abs=1e-5)
    assert found >= 0
    assert float(divergence(ours, ours + 3.0, temperature)) == pytest.approx(0, abs=1e-4)


def test_half_precision_logits_are_compared_in_float32() -> None:
    ours, theirs = torch.randn(2, 5, 300, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert divergence(ours, theirs).dtype == torch.float32
    expected = divergence(ours.float(), theirs.float())
    assert torch.equal(divergence(ours, theirs), expected)


def test_state_errors_are_means_over_anchors() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(2, 2, 2, 3, 4, generator=generator)  # [2, anchors, B, T, d]
    found = state_errors(dict(enumerate(ours)), dict(enumerate(theirs)))
    for row in range(2):
        for token in range(3):
            slow = [
                float((ours[a, row, token] - theirs[a, row, token]).norm() ** 2)
                / float(theirs[a, row, token].norm() ** 2)
                for a in range(2)
            ]
            assert float(found[row, token]) == pytest.approx(sum(slow) / 2)


def test_a_sample_weighs_as_much_in_a_packed_row_as_in_a_padded_one(
    samples: list[chat.Inputs], dense_dir: Path
) -> None:
    alone = [
        (int((one["labels"][1:] != chat.IGNORED).sum()), one["labels"].shape[0]) for one in samples
    ]
    padded = chat.collate(samples, pad_token_id=0)
    weights = token_weights(padded, padded["labels"])
    for row, (answers, tokens) in enumerate(alone):
        assert weights[row, :tokens].tolist() == pytest.approx([answers / tokens] * tokens)
        assert not weights[row, tokens:].any()
    packed = packing.pack(samples, packing.sample_positions(Checkpoint(dense_dir)), pad_token_id=0)
    weights = token_weights(packed, packed["labels"])
    expected = sorted(answers / tokens for answers, tokens in alone for _ in range(tokens))
    assert sorted(weights[weights > 0].tolist()) == pytest.approx(expected)


@pytest.fixture
def samples(processor: Any) -> list[chat.Inputs]:
    return [chat.encode_training(processor, row) for row in models.rows(4)]


@pytest.fixture
def batch(samples: list[chat.Inputs]) -> chat.Inputs:
    return chat.collate(samples, pad_token_id=0)


def loss_of(made: AnswerLoss, batch: chat.Inputs) -> float:
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        return float(made(inputs, batch["labels"]))


def all_outputs(model: Any) -> Any:
    return recorded(model, outputs=range(len(decoder_layers(model))))


def losses(student: Any, teacher: Any, batch: chat.Inputs, **weights: float) -> float:
    return loss_of(DistilledLoss(student, teacher, PLAN, Finetune(**weights)), batch)


def test_a_student_like_its_teacher_adds_nothing(dense_dir: Path, batch: chat.Inputs) -> None:
    keep_all = PLAN.model_copy(update={"drop": [], "freeze": [0, 1, 3, 5]})
    student, teacher = open_model(dense_dir), open_model(dense_dir)
    asked = Finetune(distill_logits=3, distill_states=5)
    found = loss_of(DistilledLoss(student, teacher, keep_all, asked), batch)
    assert found == pytest.approx(loss_of(AnswerLoss(student), batch), abs=1e-3)


def test_the_added_terms_are_their_formulas(
    project: Path, dense_dir: Path, batch: chat.Inputs
) -> None:
    student, teacher = open_model(project / "artifacts/pruned"), open_model(dense_dir)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    predicts = batch["labels"][:, 1:] != chat.IGNORED
    with torch.no_grad(), all_outputs(student) as ours, all_outputs(teacher) as theirs:
        logits = [model(**inputs).logits[:, :-1][predicts] for model in (student, teacher)]
        expected = slow_divergence(logits[0], logits[1], 2.0)
        errors = state_errors(
            {layer: ours.outputs[PLAN.keep.index(layer)] for layer in anchors(PLAN)},
            {layer: theirs.outputs[layer] for layer in anchors(PLAN)},
        )
    plain = loss_of(AnswerLoss(student), batch)
    found = losses(student, teacher, batch, distill_logits=1, temperature=2.0) - plain
    assert found == pytest.approx(expected, rel=1e-3)
    weighed = float((errors * token_weights(inputs, batch["labels"])).sum())
    assert losses(student, teacher, batch, distill_states=1) - plain == pytest.approx(
        weighed, rel=1e-3
    )


def test_the_gradient_is_that_of_the_whole_formula(
    project: Path, dense_dir: Path, batch: chat.Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits in parts of three tokens, against autograd through all logits at once."""
    monkeypatch.setattr(answer_gradient, "CHUNK", 3)
    student, teacher = open_model(project / "artifacts/pruned"), open_model(dense_dir)
    freeze_all_but(student, PLAN.tuned_positions)
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    labels, asked = batch["labels"], Finetune(distill_logits=2.0, distill_states=3.0)
    found = torch.autograd.grad(
        DistilledLoss(student, teacher, PLAN, asked)(inputs, labels), weights
    )
    predicts = labels[:, 1:] != chat.IGNORED
    with all_outputs(student) as ours, all_outputs(teacher) as theirs:
        logits = student(**inputs).logits[:, :-1][predicts]
        with torch.no_grad():
            goals = teacher(**inputs).logits[:, :-1][predicts]
        errors = state_errors(
            {layer: ours.outputs[PLAN.keep.index(layer)] for layer in anchors(PLAN)},
            {layer: theirs.outputs[layer] for layer in anchors(PLAN)},
        )
    loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][predicts], reduction="sum")
    loss = loss + 2 * divergence(logits, goals)
    loss = loss + 3 * (errors * token_weights(inputs, labels)).sum()
    for one, other in zip(found, torch.autograd.grad(loss, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()))


def test_nothing_below_the_lowest_tuned_layer_has_a_graph(
    project: Path, dense_dir: Path, batch: chat.Inputs
) -> None:
    student, teacher = open_model(project / "artifacts/pruned"), open_model(dense_dir)
    freeze_all_but(student, PLAN.tuned_positions)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    made = DistilledLoss(student, teacher, PLAN, Finetune(distill_logits=1, distill_states=1))
    layers = range(len(PLAN.keep))
    with recorded(student, inputs=layers) as ours, all_outputs(teacher) as theirs:
        made(inputs, batch["labels"])
    lowest = min(PLAN.tuned_positions)
    assert not any(state.requires_grad for state in theirs.outputs.values())
    assert [ours.inputs[i].requires_grad for i in layers] == [i > lowest for i in layers]
    assert all(layer >= min(PLAN.tune) for layer in anchors(PLAN))


def test_each_term_is_added_with_its_weight(
    project: Path, dense_dir: Path, batch: chat.Inputs
) -> None:
    def made(**weights: float) -> float:
        student, teacher = open_model(project / "artifacts/pruned"), open_model(dense_dir)
        return losses(student, teacher, batch, **weights)

    plain = made()
    logits, states = made(distill_logits=1) - plain, made(distill_states=1) - plain
    assert logits > 1e-3 and states > 1e-3
    both = made(distill_logits=2, distill_states=3)
    assert both == pytest.approx(plain + 2 * logits + 3 * states, rel=1e-4)


def test_a_distilled_run_does_not_depend_on_its_passes(
    project: Path, dense_dir: Path, tmp_path: Path
) -> None:
    asked = END_TO_END | {"distill_logits": 1.0, "distill_states": 1.0}
    curves = []
    for number, changes in enumerate(
        ({}, {"micro_batch_size": 4}, {"gradient_checkpointing": False}, {"packing": False})
    ):
        healed(project, dense_dir, tmp_path / str(number), **(asked | changes))
        curves.append([point["loss"] for point in curve(tmp_path / f"{number}/loss.csv")])
    for other in curves[1:]:
        assert other == pytest.approx(curves[0], rel=1e-3)
    healed(project, dense_dir, tmp_path / "plain", **END_TO_END)
    plain = [point["loss"] for point in curve(tmp_path / "plain/loss.csv")]
    assert curves[0][0] > plain[0] + 1e-3


def test_anchors_are_the_groups_or_what_follows_a_tuned_layer() -> None:
    plan = PLAN.model_copy(update={"groups": []})
    kept = plan.keep
    behind = {kept[kept.index(layer) + 1] for layer in plan.tune if layer != kept[-1]}
    assert anchors(plan) == (sorted(behind) or [kept[-1]])
    group = Group(kind="triplet", layers=(3, 4, 2), score=None, drop=(3,), tune=(4,), anchor=2)
    assert anchors(plan.model_copy(update={"groups": [group]})) == [2]
    above = plan.model_copy(update={"groups": [group], "tune": [4]})
    assert anchors(above) == [4]  # nothing that is tuned changes the states behind layer 2
