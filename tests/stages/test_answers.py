"""`answers` as a stage: the same bytes from two processes as from one, after a kill, too."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from forked_programs import environment
from training_runs import linked

from interlace.samples.own_answers import AnswerSheet, read_answer_sheet
from interlace.samples.rows import iterate
from interlace.system.documents import as_yaml
from interlace.system.outputs import remove, write_json
from stages.answers import main

BOUNDS = {"min_pixels": None, "max_pixels": None, "max_length": 512}
OWN = {"source": "dense", "max_new_tokens": 5, "batch_tokens": 300, "temperature": 1.0}
PROGRAM = """
import os, signal, sys
from interlace.data.answerers import DenseModel
from interlace.system.distributed import process_rank
from stages.answers import main
answer, calls = DenseModel.answer, []
def dying(*args):
    calls.append(1)
    if process_rank() == {victim} and len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer(*args)
DenseModel.rows, DenseModel.answer = 3, dying
main(["--params", "mine.yaml"])
"""


def workspace(project: Path, folder: Path, answers: dict[str, Any]) -> Path:
    """A folder in which the stage can run."""
    linked(project, folder)
    (folder / "data/answers").unlink()
    params = {"model": {"id": "m"}, "data": {"id": "d"}, "answers": answers}
    (folder / "mine.yaml").write_text(as_yaml(params))
    bounds = BOUNDS if answers["source"] == "dense" else None
    write_json(folder / "artifacts/params.json", {"row_bounds": bounds})
    return folder


def launch(folder: Path, processes: int, victim: int = -1) -> int:
    """Run the stage with windows of three rows; one process may die in its third call."""
    (folder / "program.py").write_text(PROGRAM.format(victim=victim))
    torchrun = ["torchrun", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*(torchrun if processes > 1 else ["python"]), "program.py"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        timeout=300,
    ).returncode


def written(folder: Path) -> dict[str, bytes]:
    out = folder / "data/answers"
    files = (path for path in sorted(out.rglob("*")) if path.is_file())
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow
def test_two_processes_and_a_resumed_run_write_the_bytes_of_one(
    project: Path, tmp_path: Path
) -> None:
    folders = [workspace(project, tmp_path / name, OWN) for name in ("one", "two", "killed")]
    one, two, killed = folders
    assert launch(one, 1) == 0
    assert launch(two, 2) == 0
    expected = written(one)
    assert set(expected) == {"answers.json", "rows/part-00000.parquet"}
    assert written(two) == expected
    assert launch(killed, 2, victim=1) != 0
    assert not (killed / "data/answers").exists()
    assert any((killed / ".scratch/answers").glob("*/window-*.json"))  # what resumes
    assert launch(killed, 1) == 0
    assert written(killed) == expected


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(folder)
    return CliRunner().invoke(main, ["--params", "mine.yaml"])


def test_labels_write_no_rows_and_open_no_model(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace(project, tmp_path, {"source": "labels"})
    remove(folder / "artifacts/sources.json")
    assert run(folder, monkeypatch).exit_code == 0
    assert list(written(folder)) == ["answers.json"]
    assert read_answer_sheet(folder / "data/answers") == AnswerSheet("labels")


def test_the_counts_are_printed_and_empty_answers_may_be_allowed_later(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interlace.data.answerers import DenseModel
    from interlace.data.answers import OwnAnswer

    calls = []

    def half_empty(self: Any, prompts: Any) -> list[OwnAnswer]:
        calls.append(prompts)
        return [OwnAnswer(" " * (n % 2) or "fine", cut=False) for n, _ in enumerate(prompts)]

    monkeypatch.setattr(DenseModel, "answer", half_empty)
    folder = workspace(project, tmp_path, OWN)
    result = run(folder, monkeypatch)
    assert result.exit_code == 2
    assert "answers.max_empty = 0.02: the dense model's answers to 8 of 16" in result.output
    count = len(calls)
    workspace_params = {
        "model": {"id": "m"},
        "data": {"id": "d"},
        "answers": OWN | {"max_empty": 1},
    }
    (folder / "mine.yaml").write_text(as_yaml(workspace_params))
    result = run(folder, monkeypatch)
    assert result.exit_code == 0, result.output
    assert len(calls) == count  # the finished window was kept
    assert "answers: 8 rows of 16 prompts" in result.output
    assert "8 with an empty answer" in result.output
    assert len(list(iterate(folder / "data/answers/rows"))) == 8
