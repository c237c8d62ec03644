"""One process needs no launcher and no torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from interlace.system.distributed import process_rank, world_size


def test_without_a_launcher_there_is_one_process_without_torch() -> None:
    code = """
import sys
from interlace.system.distributed import barrier, gather, process_group, process_rank, world_size
assert (process_rank(), world_size()) == (0, 1)
with process_group():
    barrier()
    assert gather("a") == ["a"]
assert "torch" not in sys.modules
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_a_launcher_sets_the_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (process_rank(), world_size()) == (3, 4)


def test_empty_variables_are_those_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")
    assert (process_rank(), world_size()) == (0, 1)
