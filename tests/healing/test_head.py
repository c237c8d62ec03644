"""The head is trained beside the planned layers where it has weights of its own, or refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from interruptions import interrupt
from plans import make_plan, weights
from pydantic import ValidationError
from sources_json import pinned_model, write_sources
from training_runs import (
    PREFIX,
    RECIPE,
    assert_ends,
    assert_same_run,
    column,
    linked,
    moved_weights,
    start_stage,
    tune,
)

import interlace
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.healing.end_to_end import EndToEnd
from interlace.healing.heal import train_reference
from interlace.params.healing import Recipe
from interlace.selection.reference import reference_plan
from interlace.system.outputs import write_json
from interlace.training import resume
from interlace.training.head import stored_head

PLAN = make_plan([3], [2, 4, 5])
HEAD = "lm_head.weight"
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="DeepSpeed runs on Linux only")


@pytest.fixture(scope="module")
def untied(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs of `finetune` for a model whose head has weights of its own."""
    folder = tmp_path_factory.mktemp("untied")
    dense = models.untied_qwen3_vl(folder / "dense", layers=6)
    (folder / "data").symlink_to(project / "data")
    interlace.export(dense, PLAN, folder / "artifacts/pruned", max_shard_mb=0.05)
    write_json(folder / "artifacts/plan.json", PLAN.model_dump())
    write_sources(folder, model=pinned_model(dense))
    return folder


def test_34_tensors_of_three_layers_and_the_head_move(untied: Path, tmp_path: Path) -> None:
    tune(untied, tmp_path, PLAN, train_lm_head=True, max_steps=2)
    moved = moved_weights(untied / "artifacts/pruned", tmp_path / "tuned")
    layers = {name for name in moved if name.startswith(PREFIX)}
    assert {name.split(".")[3] for name in layers} == {"2", "3", "4"}  # without layer 3
    assert (len(moved), moved - layers) == (34, {HEAD})


def test_the_head_stays_unless_it_is_asked_for(untied: Path, tmp_path: Path) -> None:
    tune(untied, tmp_path, PLAN, max_steps=2)
    moved = moved_weights(untied / "artifacts/pruned", tmp_path / "tuned")
    assert len(moved) == 33 and HEAD not in moved


@pytest.mark.parametrize(
    "changes",
    [{}, {"dtype": "bfloat16"}, {"distill_logits": 1.0}, {"local_steps": 2}],
    ids=["plain", "bfloat16", "distilled", "after local healing"],
)
def test_an_interrupted_training_of_the_head_resumes_to_the_same_weights(
    untied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    complete, resumed = tmp_path / "complete", tmp_path / "resumed"
    changes = {"train_lm_head": True} | changes
    tune(untied, complete, PLAN, **changes)
    interrupt(monkeypatch, EndToEnd, 4)  # after the resume point at 2
    with pytest.raises(KeyboardInterrupt):
        tune(untied, resumed, PLAN, **changes)
    point, _ = resume.newest_point(resumed / "scratch/end-to-end")
    assert point and len(point.files) == 3 + 1
    tune(untied, resumed, PLAN, **changes)
    assert_same_run(resumed, complete)
    assert HEAD in moved_weights(untied / "artifacts/pruned", resumed / "tuned")


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize(("processes", "zero_stage"), [(2, 0), (1, 2), (2, 2), (1, 3), (2, 3)])
def test_processes_and_stages_train_the_same_head(
    untied: Path, tmp_path: Path, processes: int, zero_stage: int
) -> None:
    folder = linked(untied, tmp_path / "stage")
    assert_ends(start_stage(folder, processes, zero_stage=zero_stage, train_lm_head=True))
    tune(untied, tmp_path / "plain", PLAN, train_lm_head=True)
    expected = column(tmp_path / "plain/loss.csv")
    assert column(folder / "metrics/loss.csv") == pytest.approx(expected, rel=1e-3)
    head, plain_head, start = (
        weights(path)[HEAD]
        for path in (
            folder / "artifacts/tuned",
            tmp_path / "plain/tuned",
            untied / "artifacts/pruned",
        )
    )
    torch.testing.assert_close(head, plain_head, rtol=0, atol=2e-3)
    assert (head - start).abs().max() > 1e-2


def test_a_reference_run_trains_the_head_too(untied: Path, tmp_path: Path) -> None:
    plan = reference_plan("dense-ft", 0.34, None, pinned_model())
    assert plan is not None
    train_reference(
        Checkpoint(untied / "dense"),
        untied / "data/train",
        tmp_path / "reference",
        plan=plan,
        params=Recipe(**(RECIPE | {"max_steps": 2, "train_lm_head": True})),
        seed=0,
        scratch=tmp_path / "scratch",
    )
    moved = moved_weights(untied / "dense", tmp_path / "reference")
    assert len(moved) == 2 * 11 + 1 and HEAD in moved


def test_a_tied_head_is_refused(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train_lm_head = true: .*config\.json ties the head"):
        tune(project, tmp_path, train_lm_head=True)


def test_a_head_that_is_not_stored_is_refused(
    untied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(untied / "artifacts/pruned")
    assert stored_head(checkpoint) == HEAD
    others = {name: tensor for name, tensor in checkpoint.tensors.items() if name != HEAD}
    monkeypatch.setattr(Checkpoint, "tensors", others)
    with pytest.raises(InputError, match=r"stores 0 tensors named lm_head\.weight, not one"):
        stored_head(Checkpoint(checkpoint.folder))


@pytest.mark.parametrize("changes", [{"lora_rank": 4}, {"max_steps": 0}])
def test_the_head_is_trained_whole_and_end_to_end(changes: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=f"train_lm_head = true .* {next(iter(changes))} = "):
        Recipe(train_lm_head=True, **changes)
