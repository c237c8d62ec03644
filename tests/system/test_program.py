"""A program is suspended, runs on, and hears that it is to end, also while it is suspended."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interlace.system.program import Program

WAITS = """
import os, signal, sys, time
def end(*_):
    print("told to end", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
child = os.fork()
print(os.getpid(), flush=True)
while True:
    time.sleep(0.1)
"""
SOON = 60.0  # seconds


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def states(log: Path) -> set[str]:
    """The states of the processes in a log, as Linux names them; T is suspended."""
    stats = [Path(f"/proc/{number}/stat").read_text() for number in log.read_text().split()]
    return {stat.rpartition(")")[2].split()[0] for stat in stats}


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program([sys.executable, "-c", WAITS], tmp_path / "log", os.environ)
    wait(lambda: len(program.log.read_text().split()) == 2)
    yield program
    program.stop()


def test_a_suspended_program_rests_with_all_its_processes_until_it_is_resumed(
    program: Program,
) -> None:
    program.suspend()
    wait(lambda: states(program.log) == {"T"})
    assert program.exit_code() is None
    program.resume()
    wait(lambda: "T" not in states(program.log))


def test_a_suspended_program_hears_that_it_is_to_end(program: Program) -> None:
    program.suspend()
    wait(lambda: states(program.log) == {"T"})
    program.stop()
    assert program.log.read_text().count("told to end") == 2


def test_a_program_that_ended_is_not_suspended(tmp_path: Path) -> None:
    program = Program([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log", os.environ)
    assert program.exit_code(wait=SOON) == 3
    program.suspend()
    program.resume()
    program.stop()
    assert program.exit_code() == 3
