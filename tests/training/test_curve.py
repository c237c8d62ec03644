"""The curve on disk follows its training, and so do the libraries that it is reported to."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from forked_programs import environment
from interruptions import interrupt
from training_runs import LOCAL_STEPS, STEPS, assert_same_run, column, curve, tune

from interlace.errors import InputError
from interlace.healing.end_to_end import EndToEnd
from interlace.healing.local import LocalHealing
from interlace.params.healing import Recipe
from interlace.params.whole import Params, settings
from interlace.system import distributed
from interlace.training.curve import Curve
from interlace.training.reports import check_reports
from interlace.training.resume import Update

LIVE = {
    "end to end": (EndToEnd, "loss.csv", {"max_steps": STEPS}, STEPS),
    "local healing": (LocalHealing, "local.csv", {"local_steps": LOCAL_STEPS}, LOCAL_STEPS),
}


def updates_to(last: int) -> list[Update]:
    return [
        Update(step=n, learning_rate=0.1, tokens=10 * n, values={"loss": n, "norm": n, "other": 0})
        for n in range(1, last + 1)
    ]


def loss_curve(path: Path, steps: int = 7, log_steps: int = 3, **options: Any) -> Curve:
    params = Recipe(log_steps=log_steps, **options)
    columns = ["loss", "step", "norm", "tokens"]
    return Curve(path, columns, steps=steps, params=params, averaged=["loss"], logs=path.parent)


@pytest.mark.parametrize("counts", [[7], [1, 2, 3, 4, 5, 6, 7], [0, 4, 7]], ids=str)
def test_an_averaged_column_is_the_mean_since_the_row_before(
    tmp_path: Path, counts: list[int]
) -> None:
    file = tmp_path / "loss.csv"
    live = loss_curve(file)
    for last in counts:
        live.write(updates_to(last))
    rows = curve(file)
    assert [list(row) for row in rows] == [["loss", "step", "norm", "tokens"]] * 4
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1), (3, 2.5), (6, 5), (7, 7)]
    assert [(row["norm"], row["tokens"]) for row in rows] == [(1, 10), (3, 30), (6, 60), (7, 70)]


def test_a_training_that_has_not_made_an_update_has_a_curve_without_rows(tmp_path: Path) -> None:
    loss_curve(tmp_path / "loss.csv").write([])
    assert (tmp_path / "loss.csv").read_bytes() == b"loss,step,norm,tokens\r\n"
    assert [path.name for path in tmp_path.iterdir()] == ["loss.csv"]  # nothing is reported


def test_the_first_process_alone_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "process_rank", lambda: 1)
    loss_curve(tmp_path / "loss.csv", report_to=["dvclive"]).write(updates_to(7))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LIVE)
def test_the_curve_on_disk_is_at_most_log_steps_behind(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    learner, file, changes, steps = LIVE[name]
    update, last_rows = learner.update, []

    def looking(*args: Any) -> Any:
        rows = curve(tmp_path / file)
        last_rows.append(rows[-1]["step"] if rows else 0)
        return update(*args)

    monkeypatch.setattr(learner, "update", looking)
    tune(project, tmp_path, log_steps=2, **({"max_steps": 1} | changes))
    assert last_rows == [0, 1, *(step - step % 2 for step in range(2, steps))]


@pytest.mark.parametrize("name", LIVE)
def test_a_resumed_run_has_each_step_once(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    learner, file, changes, _ = LIVE[name]
    changes = {"max_steps": 1} | changes
    complete, resumed = tmp_path / "complete", tmp_path / "resumed"
    tune(project, complete, **changes)
    interrupt(monkeypatch, learner, 6)  # after the resume point at 4
    with pytest.raises(KeyboardInterrupt):
        tune(project, resumed, **changes)
    assert column(resumed / file, "step") == [1, 2, 3, 4, 5]
    (resumed / file).unlink()  # as DVC does before it runs the stage again
    interrupt(monkeypatch, learner, 1)
    with pytest.raises(KeyboardInterrupt):
        tune(project, resumed, **changes)
    assert column(resumed / file, "step") == [1, 2, 3, 4]
    tune(project, resumed, **changes)
    assert_same_run(resumed, complete)


def test_the_curve_of_local_healing_is_there_when_the_training_after_it_is_resumed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, EndToEnd, 4)
    with pytest.raises(KeyboardInterrupt):
        tune(project, tmp_path, local_steps=LOCAL_STEPS)
    before = (tmp_path / "local.csv").read_bytes()
    (tmp_path / "local.csv").unlink()
    tune(project, tmp_path, local_steps=LOCAL_STEPS)
    assert (tmp_path / "local.csv").read_bytes() == before
    assert column(tmp_path / "local.csv", "step") == [*range(1, LOCAL_STEPS + 1)]


def reported_by_dvclive(folder: Path) -> dict[str, list[tuple[int, float]]]:
    values = {}
    for file in (folder / "dvclive/plots/metrics").glob("*.tsv"):
        with file.open(encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t"))
        values[file.stem] = [(int(row["step"]), float(row[file.stem])) for row in rows]
    return values


def reported_by_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    names = events.Tags()["scalars"]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}


@pytest.mark.parametrize("library", ["dvclive", "tensorboard"])
def test_a_library_has_each_step_of_a_resumed_training_once(tmp_path: Path, library: str) -> None:
    pytest.importorskip(library)
    for last in ([0, 1, 3, 5], [3, 5, 6, 7]):  # the second resumes after update 3
        live = loss_curve(tmp_path / "loss.csv", report_to=[library])
        for number in last:
            live.write(updates_to(number))
    reader = {"dvclive": reported_by_dvclive, "tensorboard": reported_by_tensorboard}[library]
    assert reader(tmp_path / "loss") == {
        name: [(int(row["step"]), row[name]) for row in curve(tmp_path / "loss.csv")]
        for name in ("loss", "norm", "tokens")
    }


def test_a_library_that_is_not_installed_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_reports(Recipe())
    with pytest.raises(InputError, match=r"report_to = tensorboard: .*; pip install tensorboard, "):
        check_reports(Recipe(report_to=("tensorboard",)))


def test_reports_are_no_reason_to_train_again() -> None:
    sections = {"model": {"id": "m"}, "data": {"id": "d"}}
    plain = Params.model_validate(sections)
    reporting = Params.model_validate(sections | {"finetune": {"report_to": ["dvclive"]}})
    assert settings(plain) == settings(reporting)
    assert plain.model_dump_json() == reporting.model_dump_json()


STAGE = """
import time
from pathlib import Path
from interlace.params.healing import Recipe
from interlace.training.curve import Curve
from interlace.training.resume import Update

live = Curve(Path("loss.csv"), ["step", "loss"], steps=4, params=Recipe(log_steps=1))
updates = []
for step in range(1, 5):
    values = {"loss": 1 / step}
    updates.append(Update(step=step, learning_rate=1, tokens=step, values=values))
    live.write(updates)
    while step == 3 and not Path("go").exists():
        time.sleep(0.1)
"""
PIPELINE = """
stages:
  train:
    cmd: python stage.py
    deps: [stage.py]
    plots: [loss.csv: {cache: false}]
plots: [loss: {x: step, y: {loss.csv: loss}}]
"""


@pytest.mark.slow
def test_dvc_shows_and_compares_the_curve_of_a_stage_that_runs(tmp_path: Path) -> None:
    def run(*command: str) -> str:
        return subprocess.run(
            command, cwd=tmp_path, env=environment(), check=True, capture_output=True, text=True
        ).stdout

    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "go").touch()
    run("git", "init", "-q")
    run("dvc", "init", "-q")
    run("dvc", "repro", "-q")
    run("git", "add", "-A")
    run(*git, "commit", "-qm", "first")
    (tmp_path / "go").unlink()
    (tmp_path / "stage.py").write_text(f"{STAGE}# changed")
    stage = subprocess.Popen(["dvc", "repro", "-q"], cwd=tmp_path, env=environment())
    while not (tmp_path / "loss.csv").exists() or len(curve(tmp_path / "loss.csv")) != 3:
        assert stage.poll() is None
        time.sleep(0.1)
    shown = json.loads(run("dvc", "plots", "diff", "--json", "HEAD"))["data"]["loss"][0]
    points = shown["content"]["data"]["values"]
    steps = {rev: [p["step"] for p in points if p["rev"] == rev] for rev in ("HEAD", "workspace")}
    assert steps == {"HEAD": ["1", "2", "3", "4"], "workspace": ["1", "2", "3"]}
    assert '"step": "3"' in run("dvc", "plots", "show", "--json")
    (tmp_path / "go").touch()
    assert stage.wait(timeout=60) == 0
