"""Runs in one folder wait for those that began earlier, and say for which."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from interlace.system.documents import read_yaml
from interlace.system.turns import RunProcess, join_line, wait_for_turn

ROOT = Path(__file__).parents[2]
OWN = RunProcess.of(os.getpid())


@pytest.fixture
def line(tmp_path: Path) -> Path:
    return tmp_path / "folder.json"


@pytest.fixture
def earlier(line: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run that joined the line first."""
    process = subprocess.Popen(["sleep", "60"])
    while not RunProcess.of(process.pid).command.startswith(
        "sleep"
    ):  # it is a fork of this one yet
        time.sleep(0.01)
    join_line(line, RunProcess.of(process.pid))
    yield process
    process.kill()
    process.wait()


def test_the_first_run_waits_for_nobody(line: Path) -> None:
    assert join_line(line, OWN) == []


def test_a_second_run_names_the_first_and_waits_until_it_ends(
    line: Path, earlier: subprocess.Popen[bytes]
) -> None:
    lines: list[str] = []

    def tell(text: str) -> None:
        lines.append(text)
        earlier.kill()  # otherwise the wait would last a minute

    wait_for_turn(line, OWN, tell)
    assert len(lines) == 1
    assert lines[0].startswith(f"wait: waits for process {earlier.pid} (sleep 60), at work since ")
    assert join_line(line, OWN) == []


def test_a_run_that_joins_again_keeps_its_turn(
    line: Path, earlier: subprocess.Popen[bytes]
) -> None:
    join_line(line, OWN)
    named = RunProcess.of(earlier.pid)
    assert join_line(line, replace(named, command="another title")) == []


def test_a_torn_file_and_a_number_that_is_used_again_hold_nobody_up(line: Path) -> None:
    line.write_text('[{"pid": 1,')
    assert join_line(line, RunProcess(os.getpid(), OWN.created - 100, "dvc repro")) == []
    assert join_line(line, OWN) == []


def test_the_first_stage_waits_and_has_no_files_for_dvc_to_guard() -> None:
    name, stage = next(iter(read_yaml(ROOT / "dvc.yaml")["stages"].items()))
    assert name == "wait"
    assert stage.keys() == {"desc", "cmd"}
