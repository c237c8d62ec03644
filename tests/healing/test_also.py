"""Projector, head and norms are trained beside the planned layers or alone, or refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping
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

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.safetensors import Stored
from interlace.errors import InputError
from interlace.healing.end_to_end import EndToEnd
from interlace.healing.heal import train_reference
from interlace.params.healing import Also, Recipe
from interlace.plan.record import Plan
from interlace.pruning.export import export_checkpoint
from interlace.selection.reference import reference_plan
from interlace.system.outputs import write_json
from interlace.training import resume
from interlace.training.also import weights_of
from interlace.training.recipe import check_recipe

PLAN = make_plan([3], [2, 4, 5])
NONE_PLANNED = make_plan([3], [])
HEAD = "lm_head.weight"
ALL: tuple[Also, ...] = ("projector", "lm_head", "norms")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="DeepSpeed runs on Linux only")


@pytest.fixture(scope="module")
def untied(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs of `finetune` for a model whose head has weights of its own."""
    folder = tmp_path_factory.mktemp("untied")
    dense = models.untied_qwen3_vl(folder / "dense", layers=6)
    (folder / "data").symlink_to(project / "data")
    export_checkpoint(dense, PLAN, folder / "artifacts/pruned", max_shard_mb=0.05)
    write_json(folder / "artifacts/plan.json", PLAN.model_dump())
    write_sources(folder, model=pinned_model(dense))
    return folder


def moved_by(untied: Path, out: Path, plan: Plan = PLAN, **changes: Any) -> set[str]:
    tune(untied, out, plan, **({"max_steps": 2} | changes))
    return moved_weights(untied / "artifacts/pruned", out / "tuned")


@pytest.mark.parametrize("planned", [PLAN, NONE_PLANNED], ids=["beside layers", "alone"])
@pytest.mark.parametrize(
    ("also", "count"),
    [("projector", 4 * 6), ("norms", 4 * 5 + 1), ("lm_head", 1)],
)
def test_what_is_named_moves_and_nothing_else(
    untied: Path, tmp_path: Path, planned: Plan, also: Also, count: int
) -> None:
    model = Checkpoint(untied / "artifacts/pruned").check_opens()
    named = set(weights_of(also, model))
    layers = {
        name
        for name in weights(untied / "artifacts/pruned")
        if name.startswith(tuple(f"{PREFIX}.{position}." for position in planned.tuned_positions))
    }
    assert (len(named), len(layers)) == (count, 11 * len(planned.tune))
    assert moved_by(untied, tmp_path, planned, also=[also]) == named | layers


def test_files_without_trained_weights_are_the_pruned_ones(untied: Path, tmp_path: Path) -> None:
    moved = moved_by(untied, tmp_path, NONE_PLANNED, also=["projector"])
    holding = {tensor.path.name for name, tensor in stored(untied).items() if name in moved}
    files = sorted((untied / "artifacts/pruned").glob("*.safetensors"))
    linked_files = {f.name for f in files if f.samefile(tmp_path / "tuned" / f.name)}
    assert linked_files == {file.name for file in files} - holding
    assert linked_files and holding


def stored(untied: Path) -> Mapping[str, Stored]:
    return Checkpoint(untied / "artifacts/pruned").tensors


@pytest.mark.parametrize(
    "changes",
    [
        {"distill_logits": 1.0, "distill_states": 1.0, "micro_batch_size": 1},
        {"dtype": "bfloat16", "also": ["lm_head"]},
        {"local_steps": 2},
    ],
    ids=["distilled, rows without images alone", "bfloat16", "after local healing"],
)
def test_an_interrupted_training_resumes_to_the_same_weights(
    untied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    complete, resumed = tmp_path / "complete", tmp_path / "resumed"
    changes = {"also": ALL} | changes
    tune(untied, complete, PLAN, **changes)
    interrupt(monkeypatch, EndToEnd, 4)  # after the resume point at 2
    with pytest.raises(KeyboardInterrupt):
        tune(untied, resumed, PLAN, **changes)
    point, _ = resume.newest_point(resumed / "scratch/end-to-end")
    assert point and len(point.files) == (5 if changes["also"] == ALL else 3) + 1
    tune(untied, resumed, PLAN, **changes)
    assert_same_run(resumed, complete)
    assert HEAD in moved_weights(untied / "artifacts/pruned", resumed / "tuned")


ONE_ROW: dict[str, Any] = {"micro_batch_size": 1}  # so some passes have no image
PLANS: dict[str, tuple[Plan, dict[str, Any]]] = {
    "beside layers": (PLAN, {"also": ALL} | ONE_ROW),
    "alone": (NONE_PLANNED, {"also": ["projector"]} | ONE_ROW),
}


@pytest.fixture(scope="module")
def plain_runs(untied: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each plan, trained in this process alone."""
    folders = {name: tmp_path_factory.mktemp("plain") for name in PLANS}
    for name, (plan, changes) in PLANS.items():
        tune(untied, folders[name], plan, **changes)
    return folders


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize("zero_stage", [0, 2, 3])
@pytest.mark.parametrize("name", PLANS)
def test_two_processes_train_as_one(
    untied: Path, plain_runs: dict[str, Path], tmp_path: Path, zero_stage: int, name: str
) -> None:
    """Processes differ in whether a pass has an image."""
    plan, changes = PLANS[name]
    folder = linked(untied, tmp_path)
    (folder / "artifacts/plan.json").unlink()
    write_json(folder / "artifacts/plan.json", plan.model_dump())
    assert_ends(start_stage(folder, 2, zero_stage=zero_stage, **changes))
    expected = column(plain_runs[name] / "loss.csv")
    assert column(folder / "metrics/loss.csv") == pytest.approx(expected, rel=1e-3)
    before = untied / "artifacts/pruned"
    one, two = plain_runs[name] / "tuned", folder / "artifacts/tuned"
    moved = moved_weights(before, one)
    assert moved == moved_weights(before, two)
    ours, plain, start = (weights(path) for path in (two, one, before))
    for weight in moved:
        torch.testing.assert_close(ours[weight], plain[weight], rtol=0, atol=2e-3)
        assert (ours[weight] - start[weight]).abs().max() > 1e-2


def test_a_reference_run_trains_the_head_too(untied: Path, tmp_path: Path) -> None:
    plan = reference_plan("dense-ft", 0.34, None, pinned_model())
    assert plan is not None
    train_reference(
        Checkpoint(untied / "dense"),
        untied / "data/train",
        tmp_path / "reference",
        plan=plan,
        params=Recipe(**(RECIPE | {"max_steps": 2, "also": ("lm_head",)})),
        seed=0,
        scratch=tmp_path / "scratch",
    )
    moved = moved_weights(untied / "dense", tmp_path / "reference")
    assert len(moved) == 2 * 11 + 1 and HEAD in moved


def refusal(also: Also, folder: Path, **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        check_recipe(Recipe(also=(also,)), pinned_model(folder, **changes))
    return str(caught.value)


def test_what_the_model_has_not_is_refused_by_name(dense_dir: Path, untied: Path) -> None:
    head = refusal("lm_head", dense_dir)
    assert head.startswith("finetune.also = lm_head: ") and "config.json ties the head" in head
    projector = refusal("projector", untied / "dense", model_type="llama")
    assert "finetune.also = projector: " in projector and "llama takes text alone" in projector
    check_recipe(Recipe(also=ALL), pinned_model(untied / "dense"))
    check_recipe(Recipe(also=("norms",)), pinned_model(dense_dir, model_type="llama"))


def test_a_tied_head_is_refused_before_training(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"finetune\.also = lm_head: Qwen3VL\w+ has no weights"):
        tune(project, tmp_path, also=["lm_head"])
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("changes", [{"lora_rank": 4}, {"max_steps": 0}], ids=str)
def test_weights_are_trained_whole_and_end_to_end(changes: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=rf"also = \[norms\] .* {next(iter(changes))} = "):
        Recipe(also=("norms",), **changes)


def test_a_name_that_is_unknown_or_repeated_is_refused() -> None:
    with pytest.raises(ValidationError, match="'projector', 'lm_head' or 'norms'"):
        Recipe.model_validate({"also": ["embeddings"]})
    with pytest.raises(ValidationError, match="norms is named twice"):
        Recipe(also=("norms", "norms"))
