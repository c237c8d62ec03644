"""A lock is held by one process, and never outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from interlace.system import locks
from interlace.system.locks import NoLocksError, acquire, holder, locked, release

HOLD = """
import sys, time
from pathlib import Path
from interlace.system.locks import acquire

acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def another_holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold a lock; it is killed afterwards."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path, sentences = tmp_path / "a/lock", []
    with another_holder(path) as process:
        assert acquire(path) is None
        assert f"process {process.pid} on " in holder(path)

        def kill(sentence: str) -> None:
            sentences.append(sentence)
            process.kill()

        with locked(path, kill):
            assert f"process {os.getpid()} on " in holder(path)
    assert len(sentences) == 1
    assert sentences[0].startswith(f"waits for process {process.pid} on ")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_forked_child_does_not_prolong_a_lock(tmp_path: Path) -> None:
    file = acquire(tmp_path / "lock")
    assert file is not None
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, b".")
        signal.pause()
    os.read(read, 1)  # once the child is at work
    file.close()  # as the system does when the parent ends
    second = acquire(tmp_path / "lock")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert second is not None
    release(tmp_path / "lock", second)


def test_a_holder_that_cannot_be_read_is_another_process(tmp_path: Path) -> None:
    for content in (b"", b"[]", b"\xff", b"{}"):
        (tmp_path / "lock").write_bytes(content)
        assert holder(tmp_path / "lock") == "another process"


def test_without_locks_work_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(path: Path) -> None:
        raise NoLocksError

    monkeypatch.setattr(locks, "acquire", unsupported)
    sentences: list[str] = []
    with locked(tmp_path / "lock", sentences.append):
        pass
    assert sentences == [f"{tmp_path}: this file system has no locks; do not run two at once"]
