"""`make demo` says the way out of a dvc.lock that DVC cannot read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "dvc.lock").read_text(encoding="utf-8")


def judged(folder: Path, code: int) -> str:
    """Judge the lock of a folder; return the one line that is said of a bad one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    command = ["sh", str(ROOT / ".ci/lock")]
    run = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    assert run.returncode == code, run.stderr
    assert len(run.stderr.splitlines()) == (code > 0)
    return run.stderr


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (LOCK, 0),
        (None, 0),
        ("", 2),
        (LOCK[: LOCK.index("stages:") + 3], 2),
        (LOCK[: LOCK.index("outs:") + 5], 2),
        (f"<<<<<<< ours\n{LOCK}", 2),
    ],
    ids=["whole", "none", "empty", "torn", "torn after a key", "in conflict"],
)
def test_a_torn_lock_is_named(tmp_path: Path, content: str | None, code: int) -> None:
    if content is not None:
        (tmp_path / "dvc.lock").write_text(content, encoding="utf-8")
    assert ("git checkout HEAD dvc.lock" in judged(tmp_path, code)) == (code > 0)


def test_a_lock_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").symlink_to("nowhere")
    assert "error: dvc.lock" in judged(tmp_path, 2)
