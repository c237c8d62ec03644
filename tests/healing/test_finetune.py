"""Healing moves the planned layers only, and an interruption costs nothing but time."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from drawn_rows import Draw
from interruptions import interrupt
from pruning.test_export import PLAN, PREFIX
from safetensors.torch import load_file, save_file
from sources_json import pinned_model, write_sources

import interlace
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.safetensors import tensor_files
from interlace.errors import ContractError, InputError
from interlace.healing import finetune as finetuning
from interlace.healing.finetune import finetune, freeze_all_but
from interlace.model.open import open_model
from interlace.outputs import write_json
from interlace.params.healing import Finetune
from interlace.training import engines
from interlace.training import loop as training
from interlace.training import resume as resume_points
from interlace.training import rows as training_rows
from interlace.training.resume import newest_point

ROOT = Path(__file__).parents[2]
STEPS = 6
RECIPE: dict[str, Any] = {
    "max_steps": STEPS,
    "learning_rate": 1e-2,
    "batch_size": 4,
    "micro_batch_size": 2,
    "max_length": 512,
    "min_pixels": None,
    "max_pixels": None,
    "save_steps": 2,
    "log_steps": 1,
    "workers": 0,
    "zero_stage": 0,
}
TUNED = tuple(f"{PREFIX}.{position}." for position in PLAN.tuned_positions)


@pytest.fixture(scope="module")
def project(dense_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the stage reads: the pruned checkpoint, the plan, the training rows."""
    folder = tmp_path_factory.mktemp("project")
    interlace.export(dense_dir, PLAN, folder / "artifacts/pruned", max_shard_mb=0.05)
    write_json(folder / "artifacts/plan.json", PLAN.model_dump())
    write_sources(folder, model=pinned_model(dense_dir))
    pq.write_table(pa.Table.from_pylist(models.rows(16)), folder / "rows.parquet")
    Draw(folder / "data")(folder / "rows.parquet")
    return folder


def tune(project: Path, out: Path, **changes: Any) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """Tune in this process, without DeepSpeed; returns the weights and the curve."""
    finetune(
        Checkpoint(changes.pop("pruned", project / "artifacts/pruned")),
        project / "data/train",
        out / "tuned",
        out / "loss.csv",
        plan=PLAN,
        params=Finetune(**(RECIPE | changes)),
        seed=0,
        scratch=out / "scratch",
    )
    return weights(out / "tuned"), curve(out / "loss.csv")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in set(tensor_files(folder).values()):
        tensors |= load_file(path)
    return tensors


def curve(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def uninterrupted(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    tune(project, out)
    return out


def test_frozen_weights_keep_their_bytes(project: Path, uninterrupted: Path) -> None:
    before, after = weights(project / "artifacts/pruned"), weights(uninterrupted / "tuned")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(name.startswith(TUNED) for name in moved)


def test_a_plan_without_tuned_layers_leaves_the_pruned_checkpoint(
    project: Path, tmp_path: Path
) -> None:
    frozen = PLAN.model_copy(update={"tune": [], "freeze": sorted(PLAN.tune + PLAN.freeze)})
    finetune(
        Checkpoint(project / "artifacts/pruned"),
        project / "data/train",
        tmp_path / "tuned",
        tmp_path / "loss.csv",
        plan=frozen,
        params=Finetune(),
        seed=0,
        scratch=tmp_path / "scratch",
    )
    before, after = (
        weights(folder) for folder in (project / "artifacts/pruned", tmp_path / "tuned")
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert curve(tmp_path / "loss.csv") == []


def test_every_weight_of_a_planned_layer_moves(project: Path, uninterrupted: Path) -> None:
    before, after = weights(project / "artifacts/pruned"), weights(uninterrupted / "tuned")
    still = [n for n in before if n.startswith(TUNED) and torch.equal(before[n], after[n])]
    assert still == []


def test_files_without_planned_layers_are_the_pruned_ones(
    project: Path, uninterrupted: Path
) -> None:
    pruned, tuned = project / "artifacts/pruned", uninterrupted / "tuned"
    rewritten = {file.name for name, file in tensor_files(pruned).items() if name.startswith(TUNED)}
    assert {path.name for path in pruned.iterdir()} == {path.name for path in tuned.iterdir()}
    for path in pruned.iterdir():
        same = path.read_bytes() == (tuned / path.name).read_bytes()
        assert same is (path.name not in rewritten), path.name


def test_the_tuned_folder_opens_with_stock_transformers(uninterrupted: Path) -> None:
    model = open_model(uninterrupted / "tuned")
    assert model.config.text_config.num_hidden_layers == 4


def test_the_curve_has_a_point_per_logged_step(uninterrupted: Path) -> None:
    points = curve(uninterrupted / "loss.csv")
    assert [point["step"] for point in points] == list(range(1, STEPS + 1))
    assert points[0].keys() == {"step", "loss", "learning_rate", "grad_norm", "tokens"}


def test_the_loss_falls(uninterrupted: Path) -> None:
    losses = [point["loss"] for point in curve(uninterrupted / "loss.csv")]
    assert sum(losses[-2:]) < sum(losses[:2])


def test_accumulated_passes_tune_as_one_large_pass(
    project: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    _, points = tune(project, tmp_path, micro_batch_size=4)
    losses = [point["loss"] for point in curve(uninterrupted / "loss.csv")]
    assert [point["loss"] for point in points] == pytest.approx(losses, rel=1e-3)


def test_gradient_checkpointing_changes_no_result(
    project: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    tensors, _ = tune(project, tmp_path, gradient_checkpointing=False)
    expected = weights(uninterrupted / "tuned")
    for name in expected:
        torch.testing.assert_close(tensors[name], expected[name], rtol=1e-4, atol=1e-5)


def test_packed_rows_tune_as_padded_ones(
    project: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    _, points = tune(project, tmp_path, packing=False)
    losses = [point["loss"] for point in curve(uninterrupted / "loss.csv")]
    assert [point["loss"] for point in points] == pytest.approx(losses, rel=1e-4)


def test_loading_in_other_processes_changes_nothing(
    project: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    _, points = tune(project, tmp_path, workers=2)
    assert points == curve(uninterrupted / "loss.csv")


def test_an_interrupted_run_goes_on_to_the_same_weights(
    project: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = interrupt(monkeypatch, training, 6)  # behind the resume point at 4
    with pytest.raises(KeyboardInterrupt):
        tune(project, tmp_path)
    assert not (tmp_path / "tuned").exists()
    tune(project, tmp_path)
    assert len(calls) == 6 + 2  # it did not start over
    assert same(tmp_path, uninterrupted)


def same(one: Path, other: Path) -> bool:
    """Whether two runs have the same curve and the same bytes of weights."""
    files = {path.name for path in (one / "tuned").iterdir()}
    return (one / "loss.csv").read_bytes() == (other / "loss.csv").read_bytes() and all(
        (one / "tuned" / name).read_bytes() == (other / "tuned" / name).read_bytes()
        for name in files
    )


def in_a_fork(function: Callable[[], Any]) -> int:
    """Start a function in a copy of this process; returns its id."""
    child = os.fork()
    if child:
        return child
    try:
        function()
    finally:
        os._exit(0)


def test_a_run_killed_at_any_time_ends_as_if_it_had_not_been(
    project: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    rng, deaths = random.Random(os.urandom(8)), 0
    for attempt in range(6):  # a whole run takes 0.4 s or more
        child = in_a_fork(lambda: tune(project, tmp_path, save_steps=1))
        time.sleep(rng.uniform(0.05, 0.3) * (1 + attempt))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        deaths += 1
    tune(project, tmp_path, save_steps=1)
    assert deaths
    assert same(tmp_path, uninterrupted)


def test_a_run_killed_while_it_saves_goes_on_from_the_point_before(
    project: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file, calls = resume_points.save_file, []

    def killing(tensors: Any, path: Path) -> None:
        save_file(tensors, path)
        calls.append(path)
        if len(calls) == 2 * len(PLAN.tune) - 1:  # in the middle of the second point
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(resume_points, "save_file", killing)
    os.waitpid(in_a_fork(lambda: tune(project, tmp_path)), 0)
    monkeypatch.undo()
    assert [path.name for path in resume_points.sorted_points(tmp_path / "scratch")] == ["point-2"]
    tune(project, tmp_path)
    assert same(tmp_path, uninterrupted)


def test_a_full_disk_keeps_the_earlier_point(
    project: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file, calls = resume_points.save_file, []

    def full(tensors: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) > len(PLAN.tune):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(resume_points, "save_file", full)
    with pytest.raises(InputError, match=r"point-4: cannot .*No space left.* goes on from point-2"):
        tune(project, tmp_path)
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "scratch").glob("*point*")] == ["point-2"]
    tune(project, tmp_path)
    assert same(tmp_path, uninterrupted)


def test_a_loss_that_is_not_finite_stops_the_stage_and_names_the_samples(
    project: Path, tmp_path: Path
) -> None:
    pruned = tmp_path / "pruned"
    pruned.mkdir()
    for path in (project / "artifacts/pruned").iterdir():
        (pruned / path.name).write_bytes(path.read_bytes())
    name = f"{TUNED[0]}mlp.down_proj.weight"
    file = tensor_files(pruned)[name]
    tensors = load_file(file)
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ContractError, match="loss is not finite in update 1") as raised:
        tune(project, tmp_path, pruned=pruned, max_steps=1)
    assert not (tmp_path / "tuned").exists()
    kept = json.loads((tmp_path / "scratch/not-finite.json").read_text())
    assert kept["step"] == 1
    known = pq.read_table(project / "data/train").column("sample_id").to_pylist()
    assert len(kept["sample_ids"]) == RECIPE["batch_size"]
    assert set(kept["sample_ids"]) <= set(known)
    assert all(sample_id in str(raised.value) for sample_id in kept["sample_ids"])


def test_only_the_pass_that_went_wrong_is_named(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, calls = engines.Plain.loss, []

    def wrong(engine: Any, inputs: Any, labels: Any) -> torch.Tensor:
        calls.append(1)
        return loss(engine, inputs, labels) * (float("nan") if len(calls) == 4 else 1.0)

    monkeypatch.setattr(engines.Plain, "loss", wrong)
    with pytest.raises(ContractError, match="not finite in update 2"):
        tune(project, tmp_path)
    kept = json.loads((tmp_path / "scratch/not-finite.json").read_text())
    shares = training_rows.schedule(16, 0, Finetune(**RECIPE), 1)
    rows = training_rows.TrainingRows(project / "data/train", None, 1, tmp_path / "rows")
    assert kept["sample_ids"] == rows.sample_ids(shares.pass_of(1, 1, 0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_in_16_bits_are_tuned_in_32(
    project: Path, uninterrupted: Path, tmp_path: Path, dtype: str
) -> None:
    """At this learning rate a step is lost in the rounding of bfloat16."""
    tune(project, tmp_path, dtype=dtype, learning_rate=1e-5)
    before = weights(project / "artifacts/pruned")
    point = newest_point(tmp_path / "scratch")[0]
    assert point
    for tensors in point.tensors():
        for name, master in tensors.items():
            if name.endswith("mlp.up_proj.weight"):
                start = before[name.removeprefix("model.")].to(getattr(torch, dtype)).float()
                assert 1e-6 < (master - start).abs().mean() < 1e-4


def test_a_model_in_bfloat16_learns_as_in_float32(
    project: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    _, points = tune(project, tmp_path, dtype="bfloat16")
    losses = [point["loss"] for point in curve(uninterrupted / "loss.csv")]
    assert [point["loss"] for point in points] == pytest.approx(losses, rel=0.1)


def test_the_learning_rate_is_that_of_transformers_cosine_schedule() -> None:
    from transformers import get_cosine_schedule_with_warmup

    params, steps = Finetune(warmup_ratio=0.1, learning_rate=3e-4), 37
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    theirs = get_cosine_schedule_with_warmup(optimizer, math.ceil(0.1 * steps), steps)
    for step in range(steps):
        assert training.learning_rate(params, step, steps) == pytest.approx(
            theirs.get_last_lr()[0], rel=1e-12
        )
        optimizer.step()
        theirs.step()


def test_a_point_of_the_curve_is_the_mean_since_the_point_before(tmp_path: Path) -> None:
    updates = [training.Update(step, float(step), 0.1, 0.2, 10 * step) for step in range(1, 8)]
    finetuning.write_curve(tmp_path / "loss.csv", updates, 3)
    points = curve(tmp_path / "loss.csv")
    assert [(p["step"], p["loss"]) for p in points] == [(1, 1), (3, 2.5), (6, 5), (7, 7)]


def test_only_the_planned_layers_take_gradients(dense_dir: Path) -> None:
    model = open_model(dense_dir)
    freeze_all_but(model, [1, 4])
    free = {name for name, weight in model.named_parameters() if weight.requires_grad}
    layers = {name.removeprefix(f"{PREFIX}.").split(".")[0] for name in free}
    assert all(name.startswith(PREFIX) for name in free)
    assert layers == {"1", "4"}
