"""Locks on files: one process holds a lock, and the system releases it however the process ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PAUSE = 0.3  # seconds between two tries
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_locked_files: set[IO[str]] = set()


class NoLocksError(Exception):
    """The file system has no locks."""


@contextmanager
def locked(path: Path, say: Callable[[str], object]) -> Iterator[None]:
    """Hold a lock while the block runs; wait while another process holds it.

    The lock is flock's. On a network file system it must reach all hosts, as it does on NFS under
    Linux. Without locks the block runs at once.

    Args:
        path: the file to lock, created for that and removed afterwards.
        say: is told once, in a sentence, who holds the lock, or that there are none.
    """
    file = _first_try(path, say)
    try:
        yield
    finally:
        if file is not None:
            release(path, file)


def _first_try(path: Path, say: Callable[[str], object]) -> IO[str] | None:
    try:
        file = acquire(path)
        if file is None:
            say(f"waits for {holder(path)}; Ctrl-C ends the wait")
        while file is None:
            time.sleep(PAUSE)
            file = acquire(path)
    except NoLocksError:
        say(f"{path.parent}: this file system has no locks; do not run two at once")
        return None
    return file


def acquire(path: Path) -> IO[str] | None:
    """Lock a file, created for that; return `None` if another holds the lock.

    Raises:
        NoLocksError: the file system has none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # the holder before may have removed the file that was opened
        current = os.stat(path).st_ino == os.fstat(file.fileno()).st_ino
    except (BlockingIOError, FileNotFoundError):
        current = False
    except OSError as error:
        file.close()
        if error.errno in _UNSUPPORTED:
            path.unlink(missing_ok=True)
            raise NoLocksError from None
        raise
    if not current:
        file.close()
        return None
    _locked_files.add(file)
    _write_holder(file)
    return file


def release(path: Path, file: IO[str]) -> None:
    """Release a lock that `acquire` returned, and remove its file."""
    _locked_files.discard(file)
    path.unlink(missing_ok=True)
    file.close()


def _write_holder(file: IO[str]) -> None:
    """Write down who holds the lock, for `holder`; a full disk is no reason to fail."""
    record = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "command": " ".join(sys.orig_argv)[:200],
        "since": time.strftime("%Y-%m-%d %H:%M"),
    }
    with suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), json.dumps(record).encode())


def holder(path: Path) -> str:
    """Describe the process that holds a lock."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return (
            f"process {record['process']} on {record['host']} ({record['command']}), at work since"
            f" {record['since']}"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _forget_in_child() -> None:
    """Close the locks' files in a forked child, which would hold them longer than its parent."""
    for file in _locked_files:
        with suppress(OSError):
            os.close(file.fileno())
    _locked_files.clear()


os.register_at_fork(after_in_child=_forget_in_child)
