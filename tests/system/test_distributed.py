"""One process needs no launcher and no torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from interlace.errors import ContractError
from interlace.system.distributed import lost_processes_named, process_rank, world_size


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


GLOO = RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer")
BACKEND = type("DistBackendError", (type("DistError", (RuntimeError,), {}),), {})("NCCL error")


@pytest.mark.parametrize("error", [GLOO, BACKEND], ids=["gloo", "nccl"])
def test_a_process_that_ended_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ContractError, match="another process ended"), lost_processes_named():
        raise error


def test_another_failure_in_a_launch_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="shapes"), lost_processes_named():
        raise RuntimeError("shapes differ")
