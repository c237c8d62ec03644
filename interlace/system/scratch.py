"""The folder for unfinished work: its size, and a way to empty it that spares running work."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from interlace.system import locks

REPLIES = ("answered", "judged", "served")  # of servers, which may have been paid for
CACHES = ("outlines", "pin")
WORK = (  # by stage: a folder and a lock beside it for each content of its inputs
    *("sample", "answers", "collect", "sensitivity", "rounds", "candidates"),
    *("export", "finetune", "reference", "evaluate"),
)
_WORK_FOLDERS = "locks"  # a lock for each folder that a stage is at work in
_RUNS = "runs"  # lines of runs that wait for one another, by folder


def scratch_root() -> Path:
    """Return the folder for unfinished work, shared by all experiments of a repository."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".scratch"


def folder_key() -> str:
    """Name the folder that this process works in, among those that share a scratch folder."""
    return hashlib.sha256(os.path.realpath(".").encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ScratchEntry:
    """A folder of scratch.

    Attributes:
        name: of a stage or a cache, or of something that is not the pipeline's.
        size: on the disk, bytes; files that other folders share count as well.
        holders: the processes that use it; unknown of what is not the pipeline's.
    """

    name: str
    size: int
    holders: tuple[str, ...] = ()


def scratch_entries(root: Path) -> list[ScratchEntry]:
    """Measure the folders of scratch, the largest first."""
    paths = [path for path in _listed(root) if path.name not in (_WORK_FOLDERS, _RUNS)]
    entries = [ScratchEntry(path.name, _size(path), _holders(path)) for path in paths]
    return sorted(entries, key=lambda entry: (-entry.size, entry.name))


def clear_scratch(root: Path, *, replies: bool = False) -> list[ScratchEntry]:
    """Remove unfinished work and caches, but nothing that a running stage uses.

    Args:
        root: the folder of scratch.
        replies: also remove the replies of servers.

    Returns:
        The removed folders, with the size of what was removed.
    """
    names = (*WORK, *CACHES, *(REPLIES if replies else ()))
    sizes = {name: _clear_entry(root / name) for name in names}
    for half_removed in root.glob(".*.partial"):
        shutil.rmtree(half_removed, ignore_errors=True)
    return [ScratchEntry(name, size) for name, size in sizes.items() if size]


def _clear_entry(path: Path) -> int:
    if path.name in WORK:
        return sum(_clear_work(work) for work in _listed(path) if work.suffix != ".lock")
    return 0 if _holders(path) else _clear(path)


def _clear_work(path: Path) -> int:
    """Remove the work of one content of a stage's inputs, unless a process holds its lock."""
    lock = path.with_suffix(".lock")
    try:
        file = locks.acquire(lock)
    except locks.NoLocksError:
        return 0
    if file is None:
        return 0
    try:
        return _clear(path)
    finally:
        locks.release(lock, file)


def _clear(path: Path) -> int:
    """Remove a folder, whole from the first moment on; return its size."""
    size, doomed = _size(path), path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    try:
        path.rename(doomed)
    except FileNotFoundError:
        return 0
    shutil.rmtree(doomed, ignore_errors=True)
    return size


def _holders(path: Path) -> tuple[str, ...]:
    """Name the processes that use a folder of scratch; of caches and replies, all stages."""
    if path.name not in (*WORK, *CACHES, *REPLIES):
        return ()
    folder = path if path.name in WORK else path.with_name(_WORK_FOLDERS)
    held = (lock for lock in _listed(folder) if folder != path or lock.suffix == ".lock")
    return tuple(dict.fromkeys(locks.holder(lock) for lock in held if _is_held(lock)))


def _is_held(lock: Path) -> bool:
    try:
        file = locks.acquire(lock)
    except locks.NoLocksError:
        return True  # nobody can tell
    if file is not None:
        locks.release(lock, file)
    return file is None


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    """Measure a file or a folder on the disk; a file with several names in it counts once."""
    sizes = {(facts.st_dev, facts.st_ino): 512 * facts.st_blocks for facts in _facts(path)}
    return sum(sizes.values())


def _facts(path: Path) -> Iterator[os.stat_result]:
    try:
        yield path.lstat()
        if path.is_dir() and not path.is_symlink():
            for child in path.iterdir():
                yield from _facts(child)
    except FileNotFoundError:  # a running stage removed it
        return
