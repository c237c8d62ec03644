"""The teacher's terms are what the formulas say, and do not depend on how a batch is split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_checkpoint import PLAN
from test_finetune import curve, project
from test_local_healing import healed
from torch import Tensor

from interlace import chat
from interlace.distillation import anchors, answer_logits, distilled, divergence, state_errors
from interlace.finetune import token_mean
from interlace.methods import Group
from interlace.params import Finetune
from interlace.sources import open_model

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


def test_logits_are_those_in_front_of_answer_tokens() -> None:
    logits = torch.arange(2 * 4.0).reshape(2, 4, 1)
    labels = torch.tensor([[-100, 5, 5, -100], [-100, -100, -100, 5]])
    assert answer_logits(logits, labels).flatten().tolist() == [0, 1, 6]


def test_state_errors_are_means_over_anchors_and_valid_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(2, 2, 2, 3, 4, generator=generator)  # [2, anchors, B, T, d]
    valid = torch.tensor([[1, 1, 0], [1, 1, 1]])
    expected = []
    for row in range(2):
        tokens = [
            float((ours[a, row, t] - theirs[a, row, t]).norm() ** 2 / theirs[a, row, t].norm() ** 2)
            for a in range(2)
            for t in range(3)
            if valid[row, t]
        ]
        expected.append(sum(tokens) / len(tokens))
    found = state_errors(dict(enumerate(ours)), dict(enumerate(theirs)), valid)
    assert found.tolist() == pytest.approx(expected)


@pytest.fixture
def batch(processor: Any) -> chat.Inputs:
    rows = [chat.encode_training(processor, row) for row in models.rows(4)]
    return chat.collate(rows, pad_token_id=0)


def losses(student: Any, teacher: Any, batch: chat.Inputs, **weights: float) -> float:
    loss = distilled(student, teacher, PLAN, Finetune(**weights))
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        return float(loss(student(**inputs), batch["labels"]))


def test_a_student_like_its_teacher_adds_nothing(dense_dir: Path, batch: chat.Inputs) -> None:
    keep_all = PLAN.model_copy(update={"drop": [], "freeze": [0, 1, 3, 5]})
    student, teacher = open_model(dense_dir), open_model(dense_dir)
    loss = distilled(student, teacher, keep_all, Finetune(distill_logits=3, distill_states=5))
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        outputs = student(**inputs)
        plain = float(token_mean(outputs, batch["labels"]))
        assert float(loss(outputs, batch["labels"])) == pytest.approx(plain, abs=1e-5)


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
        ({}, {"micro_batch_size": 4}, {"gradient_checkpointing": False})
    ):
        healed(project, dense_dir, tmp_path / str(number), **(asked | changes))
        curves.append([point["loss"] for point in curve(tmp_path / f"{number}/loss.csv")])
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    assert curves[2] == pytest.approx(curves[0], rel=1e-3)
    healed(project, dense_dir, tmp_path / "plain", **END_TO_END)
    plain = [point["loss"] for point in curve(tmp_path / "plain/loss.csv")]
    assert curves[0][0] > plain[0] + 1e-3


def test_anchors_are_the_groups_or_what_follows_a_tuned_layer() -> None:
    plan = PLAN.model_copy(update={"groups": []})
    kept = plan.keep
    behind = {kept[kept.index(layer) + 1] for layer in plan.tune if layer != kept[-1]}
    assert anchors(plan) == (sorted(behind) or [kept[-1]])
    group = Group(kind="triplet", layers=(3, 4, 1), score=None, drop=(3,), tune=(4,), anchor=1)
    assert anchors(plan.model_copy(update={"groups": [group]})) == [1]
