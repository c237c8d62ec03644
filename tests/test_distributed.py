"""One process needs no launcher and no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from interlace.distributed import barrier, gather, process_group, process_rank, world_size


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (process_rank(), world_size()) == (0, 1)
    with process_group():
        barrier()
        assert gather("a") == ["a"]


def test_a_launcher_sets_the_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (process_rank(), world_size()) == (3, 4)


def test_one_process_needs_no_torch() -> None:
    code = (
        "import sys; from interlace.distributed import barrier, process_group\n"
        "with process_group(): barrier()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
