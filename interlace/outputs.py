"""Write outputs whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interlace.errors import InputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there when the block succeeds.

    The old file or folder stays untouched until then, and for good if the block fails.

    Raises:
        InputError: the disk, a quota or a limit on the size of a file is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    old = path.with_name(f".{path.name}.old")
    _restore(path, old)
    remove(partial)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if path.is_dir() and not path.is_symlink():
            os.replace(path, old)  # a folder cannot be replaced in one step
        os.replace(partial, path)
    except Exception as error:
        number = _error_number(error)
        if number not in _FULL:
            raise
        raise InputError(
            f"{path}: could not be written: {os.strerror(number)}; free disk space and run it again"
        ) from None
    finally:
        _restore(path, old)
        remove(partial)


def _restore(path: Path, old: Path) -> None:
    """Undo a replacement that ended between its two steps; remove the old version of others."""
    if os.path.lexists(old) and not os.path.lexists(path):
        os.replace(old, path)
    remove(old)


def _error_number(error: Exception) -> int | None:
    """Return the system's number of an error; safetensors has it in its message alone."""
    if isinstance(error, OSError):
        return error.errno
    if type(error).__name__ == "SafetensorError":
        match = re.search(r"\(os error (\d+)\)", str(error))
        return int(match[1]) if match else None
    return None


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with a stable layout, whole or not at all."""
    with whole(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def link_or_copy(source: Path, target: Path) -> None:
    """Put the same bytes at `target`: as a hard link if the file system allows, else as a copy."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)
