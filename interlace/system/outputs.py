"""Write outputs whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import glob
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from interlace.errors import InputError
from interlace.system import interruption, locks

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_BLOCKED = (errno.ENOTDIR, errno.EEXIST)
_GROWN = 2**26  # bytes of a growing file that are worth a call
_WRITE, _OFFSET = 2, ctypes.c_int64  # SYNC_FILE_RANGE_WRITE; a length of 0: to the end
_unfinished: set[Path] = set()  # temporary paths of this process


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there when the block succeeds.

    The old file or folder stays untouched until then, and for good if the block fails. The bytes
    are on the disk before they are moved. Temporary paths are unique, so that two processes may
    write the same output; the last one wins. Others may read what the umask lets them read.

    Raises:
        InputError: the file system refuses to write it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_remnants(path)
        with _temporary(path) as (partial, old):
            yield partial
            _share(partial)
            synced(partial)
            _move(partial, path, old)
    except Exception as error:
        raise_if_refused(error, path)
        raise


@contextmanager
def refusals_named(path: Path | None = None) -> Iterator[None]:
    """Turn what the file system refuses into one line, also where a library wraps its error.

    Args:
        path: what the block writes; `None`: the error's own file, if it has one.

    Raises:
        InputError: the disk, a quota or a limit on the size of a file is full, a right is missing,
            or a file is where a folder should be.
    """
    try:
        yield
    except Exception as error:
        raise_if_refused(error, path)
        raise


def raise_if_refused(error: BaseException, path: Path | None) -> None:
    """Raise InputError if the file system refused something, by an error or one that caused it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        if refusal := _refusal(cause, path):
            raise InputError(refusal) from None
        cause = cause.__cause__ or cause.__context__


def _refusal(error: BaseException, path: Path | None) -> str | None:
    number, own_file = _error_number(error), getattr(error, "filename", None)
    file = path or own_file
    if number in _FULL:
        reason = os.strerror(number)
        return (
            f"{file or 'a file'}: could not be written: {reason}; free disk space and run it again"
        )
    if number in _DENIED and file:
        return f"{file}: {os.strerror(number).lower()}; let this user read and write there"
    if number in _BLOCKED and own_file:
        for folder in (Path(os.fsdecode(own_file)), *Path(os.fsdecode(own_file)).parents):
            if os.path.lexists(folder):
                blocked = not folder.is_dir()
                return f"{folder}: a file where a folder should be; move it" if blocked else None
    return None


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the path to write and the one for the old version, unique while the block runs.

    A lock beside them tells other processes that they are in use.
    """
    file = None
    while file is None:
        token = os.urandom(4).hex()
        lock, partial, old = (
            path.with_name(f".{path.name}.{token}.{kind}") for kind in ("lock", "partial", "old")
        )
        try:
            file = locks.acquire(lock)
        except locks.NoLocksError:
            break
    _unfinished.add(partial)
    try:
        yield partial, old
    finally:
        _restore(path, old)
        remove(partial)
        _unfinished.discard(partial)
        if file is not None:
            locks.release(lock, file)


def _clear_remnants(path: Path) -> None:
    """Remove what dead processes left of `path`; the system has released their locks."""
    for lock in path.parent.glob(f".{glob.escape(path.name)}.*.lock"):
        try:
            file = locks.acquire(lock)
        except locks.NoLocksError:
            return
        if file is not None:
            _restore(path, lock.with_suffix(".old"))
            remove(lock.with_suffix(".partial"))
            locks.release(lock, file)


def _move(partial: Path, path: Path, old: Path) -> None:
    """Move a file or folder to its place."""
    while True:
        if _is_folder(path) or (_is_folder(partial) and os.path.lexists(path)):
            if _exchange(partial, path):
                return  # the old version is removed with the temporary path
            remove(old)
            with suppress(FileNotFoundError):
                os.replace(path, old)
        try:
            os.replace(partial, path)
            return
        except OSError as error:  # another process was faster
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR):
                raise


def _share(path: Path) -> None:
    """Give new files the rights that the umask leaves: safetensors keeps its files private.

    Hard links stay as they are, since their rights are those of the files they link to.
    """
    mask = os.umask(0o077)  # only setting it tells it
    os.umask(mask)
    for file in path.rglob("*") if _is_folder(path) else [path]:
        facts = file.lstat()
        missing_rights = 0o666 & ~mask & ~facts.st_mode
        if missing_rights and stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1:
            file.chmod(stat.S_IMODE(facts.st_mode) | missing_rights)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step, by Linux's renameat2; tell if the system can."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    folder, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(folder, os.fsencode(first), folder, os.fsencode(second), swap) == 0)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def synced(path: Path) -> None:
    """Wait until a file, or all of a folder, is on the disk."""
    if path.is_symlink():
        return
    for child in path.iterdir() if path.is_dir() else ():
        synced(child)
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise  # else a file system that cannot sync folders
    finally:
        os.close(number)


@contextmanager
def written_while_growing(file: IO[bytes]) -> Iterator[Callable[[int], None]]:
    """Yield what to call with the size of every piece that was appended to a file, bytes.

    The system begins to write at once, in the background. By itself it holds back gigabytes, and
    `synced` would wait for them at the end. Where it has no such call, nothing happens. Errors are
    left to `synced`.
    """
    start = getattr(ctypes.CDLL(None), "sync_file_range", None)
    new, writing = 0, None

    def grown(size: int) -> None:
        nonlocal new, writing
        new += size
        if start and new >= _GROWN and (writing is None or writing.done()):
            writing = pool.submit(start, file.fileno(), _OFFSET(0), _OFFSET(0), _WRITE)
            new = 0

    with ThreadPoolExecutor(1) as pool:  # the call waits where the disk's queue is full
        yield grown


def discard_unfinished() -> None:
    """Remove this process's temporary files, where it ends without unwinding."""
    for partial in list(_unfinished):
        with suppress(OSError):
            remove(partial)
            partial.with_suffix(".lock").unlink(missing_ok=True)


interruption.last_steps.append(discard_unfinished)


def _restore(path: Path, old: Path) -> None:
    """Undo a replacement that ended between its two steps; remove the old version of others."""
    if os.path.lexists(old) and not os.path.lexists(path):
        os.replace(old, path)
    remove(old)


def _error_number(error: BaseException) -> int | None:
    """Return the system's number of an error; safetensors has it in its message alone."""
    if isinstance(error, OSError):
        return error.errno
    if type(error).__name__ == "SafetensorError":
        match = re.search(r"\(os error (\d+)\)", str(error))
        return int(match[1]) if match else None
    return None


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, if it exists."""
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with a stable layout, whole or not at all."""
    with whole(path) as partial:
        partial.write_text(json_text(value), encoding="utf-8")


def json_text(value: Any) -> str:
    """Return JSON with a stable layout."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def link_or_copy(source: Path, target: Path) -> None:
    """Put the same bytes at `target`: as a hard link if the file system allows, else as a copy."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)
