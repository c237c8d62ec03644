"""End-to-end training moves the planned layers only, and an interruption costs nothing but time."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from interruptions import interrupt
from plans import PLAN, PREFIX
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from training_runs import (
    RECIPE,
    STEPS,
    TUNED,
    assert_same_run,
    column,
    curve,
    moved_weights,
    tune,
    weights,
)

from interlace.checkpoint.safetensors import tensor_files
from interlace.errors import ContractError, InputError
from interlace.healing.end_to_end import EndToEnd
from interlace.healing.finetune import freeze_all_but
from interlace.model.open import open_model
from interlace.params.healing import Finetune
from interlace.training import resume
from interlace.training.engines import Plain
from interlace.training.rows import TrainingBatches, TrainingRows


def test_the_planned_layers_move_and_all_others_keep_their_bytes(
    project: Path, tuned_run: Path
) -> None:
    pruned = project / "artifacts/pruned"
    expected = {name for name in weights(pruned) if name.startswith(TUNED)}
    assert moved_weights(pruned, tuned_run / "tuned") == expected


def test_files_without_planned_layers_are_the_pruned_ones(project: Path, tuned_run: Path) -> None:
    pruned, tuned = project / "artifacts/pruned", tuned_run / "tuned"
    rewritten = {file.name for name, file in tensor_files(pruned).items() if name.startswith(TUNED)}
    assert {path.name for path in pruned.iterdir()} == {path.name for path in tuned.iterdir()}
    for path in pruned.iterdir():
        same = path.read_bytes() == (tuned / path.name).read_bytes()
        assert same is (path.name not in rewritten), path.name


def test_a_plan_without_tuned_layers_leaves_the_pruned_checkpoint(
    project: Path, tmp_path: Path
) -> None:
    frozen = PLAN.model_copy(update={"tune": [], "freeze": sorted(PLAN.tune + PLAN.freeze)})
    _, points = tune(project, tmp_path, frozen)
    assert moved_weights(project / "artifacts/pruned", tmp_path / "tuned") == set()
    assert points == []


def test_the_tuned_folder_opens_with_stock_transformers(tuned_run: Path) -> None:
    assert open_model(tuned_run / "tuned").config.text_config.num_hidden_layers == 4


def test_the_curve_has_a_row_per_logged_step_and_falls(tuned_run: Path) -> None:
    points = curve(tuned_run / "loss.csv")
    assert [point["step"] for point in points] == list(range(1, STEPS + 1))
    assert list(points[0]) == ["step", "loss", "learning_rate", "grad_norm", "tokens"]
    losses = [point["loss"] for point in points]
    assert sum(losses[-2:]) < sum(losses[:2])


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"workers": 2}, 0),
        ({"gradient_checkpointing": False}, 1e-5),
        ({"packing": False}, 1e-4),
        ({"micro_batch_size": 4}, 1e-3),
        ({"dtype": "bfloat16"}, 0.1),
    ],
)
def test_the_losses_do_not_depend_on_how_they_are_computed(
    project: Path, tuned_run: Path, tmp_path: Path, changes: dict[str, Any], tolerance: float
) -> None:
    tune(project, tmp_path, **changes)
    expected = column(tuned_run / "loss.csv")
    assert column(tmp_path / "loss.csv") == pytest.approx(expected, rel=tolerance, abs=0)


def test_an_interrupted_run_resumes_to_the_same_weights(
    project: Path, tuned_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = interrupt(monkeypatch, EndToEnd, 6)  # after the resume point at 4
    with pytest.raises(KeyboardInterrupt):
        tune(project, tmp_path)
    assert not (tmp_path / "tuned").exists()
    tune(project, tmp_path)
    assert len(calls) == 6 + 2  # it did not start over
    assert_same_run(tmp_path, tuned_run)


def fork(function: Callable[[], Any]) -> int:
    """Start a function in a copy of this process; return the copy's id."""
    if child := os.fork():
        return child
    tqdm.set_lock(threading.RLock())  # its own: a killed copy would never release a shared one
    try:
        function()
    finally:
        os._exit(0)


def test_a_run_killed_at_any_time_ends_as_an_uninterrupted_one(
    project: Path, tuned_run: Path, tmp_path: Path
) -> None:
    rng, kills = random.Random(os.urandom(8)), 0
    for attempt in range(6):  # a complete run takes 0.4 s or more
        child = fork(lambda: tune(project, tmp_path, save_steps=1))
        time.sleep(rng.uniform(0.05, 0.3) * (1 + attempt))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        kills += 1
    tune(project, tmp_path, save_steps=1)
    assert kills
    assert_same_run(tmp_path, tuned_run)


def fail_in_second_point(monkeypatch: pytest.MonkeyPatch, failure: Callable[[Path], None]) -> None:
    """Call `failure` after the first file of the second resume point is written."""
    save_file, files = resume.save_file, []

    def failing(tensors: Any, path: Path) -> None:
        save_file(tensors, path)
        files.append(path)
        if len(files) == len(PLAN.tune) + 1:
            failure(path)

    monkeypatch.setattr(resume, "save_file", failing)


def test_a_run_killed_while_it_saves_resumes_from_the_point_before(
    project: Path, tuned_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_in_second_point(monkeypatch, lambda _: os.kill(os.getpid(), signal.SIGKILL))
    os.waitpid(fork(lambda: tune(project, tmp_path)), 0)
    monkeypatch.undo()
    points = resume.sorted_points(tmp_path / "scratch/end-to-end")
    assert [path.name for path in points] == ["point-2"]
    tune(project, tmp_path)
    assert_same_run(tmp_path, tuned_run)


def test_a_full_disk_keeps_the_earlier_point(
    project: Path, tuned_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    fail_in_second_point(monkeypatch, fill)
    with pytest.raises(InputError, match=r"point-4: .*No space left.* resumes from point-2"):
        tune(project, tmp_path)
    monkeypatch.undo()
    scratch = tmp_path / "scratch/end-to-end"
    assert [path.name for path in scratch.glob("*point*")] == ["point-2"]
    tune(project, tmp_path)
    assert_same_run(tmp_path, tuned_run)


def test_a_loss_that_is_not_finite_stops_the_stage_and_names_the_samples(
    project: Path, tmp_path: Path
) -> None:
    pruned = tmp_path / "pruned"
    shutil.copytree(project / "artifacts/pruned", pruned)
    name = f"{TUNED[0]}mlp.down_proj.weight"
    file = tensor_files(pruned)[name]
    tensors = load_file(file)
    tensors[name].fill_(float("nan"))
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ContractError, match=r"loss is not finite in update 1.*learning_rate") as e:
        tune(project, tmp_path, pruned=pruned)
    assert not (tmp_path / "tuned").exists()
    record = json.loads((tmp_path / "scratch/end-to-end/not-finite.json").read_text())
    assert record["step"] == 1
    ids = pq.read_table(project / "data/train").column("sample_id").to_pylist()
    assert len(record["sample_ids"]) == RECIPE["batch_size"]
    assert set(record["sample_ids"]) <= set(ids)
    assert all(sample_id in str(e.value) for sample_id in record["sample_ids"])


@pytest.mark.parametrize(("quantity", "passes"), [("loss", [1]), ("gradient", [0, 1])])
def test_only_samples_of_the_passes_concerned_are_named(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quantity: str,
    passes: list[int],
) -> None:
    method, calls = {"loss": "loss", "gradient": "step"}[quantity], []
    original, wrong_call = getattr(Plain, method), 4 if quantity == "loss" else 2

    def wrong(*args: Any) -> Any:
        calls.append(1)
        return original(*args) * (float("nan") if len(calls) == wrong_call else 1.0)

    monkeypatch.setattr(Plain, method, wrong)
    with pytest.raises(ContractError, match=f"{quantity} is not finite in update 2"):
        tune(project, tmp_path)
    record = json.loads((tmp_path / "scratch/end-to-end/not-finite.json").read_text())
    batches = TrainingBatches.split(16, 0, Finetune(**RECIPE), 1)
    rows = TrainingRows(project / "data/train", None, 1, tmp_path / "rows")
    indices = [row for number in passes for row in batches.of_pass(1, number, 0)]
    assert record["sample_ids"] == rows.sample_ids(indices)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_in_16_bits_are_tuned_in_32(project: Path, tmp_path: Path, dtype: str) -> None:
    """At this learning rate a step is lost in the rounding of bfloat16."""
    tune(project, tmp_path, dtype=dtype, learning_rate=1e-5)
    pruned = weights(project / "artifacts/pruned")
    point, _ = resume.newest_point(tmp_path / "scratch/end-to-end")
    assert point
    masters = {name: value for tensors in point.tensors() for name, value in tensors.items()}
    names = [name for name in masters if name.endswith("mlp.up_proj.weight")]
    assert len(names) == len(PLAN.tune)
    for name in names:
        start = pruned[name.removeprefix("model.")].to(getattr(torch, dtype)).float()
        assert 1e-6 < (masters[name] - start).abs().mean() < 1e-4


def test_only_the_unfrozen_layers_take_gradients(dense_dir: Path) -> None:
    model = open_model(dense_dir)
    freeze_all_but(model, [1, 4])
    free = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name.rpartition(f"{PREFIX}.")[2].split(".")[0] for name in free} == {"1", "4"}
