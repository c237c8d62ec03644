"""Finished pieces of unfinished work: kept with their digests, thrown away where damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interlace.printable import say
from interlace.system.distributed import barrier, process_rank
from interlace.system.outputs import json_text, remove, whole


@contextmanager
def kept(path: Path) -> Iterator[Path]:
    """Write a file or folder as `whole` does, and its digest beside it, for `intact`."""
    with whole(path) as partial:
        yield partial
    mark(path)


def mark(path: Path) -> None:
    """Write the digest of a finished file or folder beside it, for `intact`."""
    _note(path).write_text(content_digest(path), encoding="ascii")


def keep_json(path: Path, value: Any) -> None:
    """Write JSON for `intact`."""
    with kept(path) as partial:
        partial.write_text(json_text(value), encoding="utf-8")


def intact(path: Path) -> bool:
    """Return True if a file or folder is there as `kept` wrote it; remove it if it is damaged."""
    try:
        if _note(path).read_bytes() == content_digest(path).encode():
            return True
    except FileNotFoundError:
        if not path.exists():
            return False
    except NotADirectoryError:  # the folder is none
        raise
    except OSError:
        pass
    say(f"{path}: unfinished or damaged, done again", error=True)
    remove(path)
    return False


def read_digests(path: Path) -> set[str]:
    """Read the digests of contents that passed a check earlier; empty where there are none."""
    return set(json.loads(path.read_bytes()) if intact(path) else ())


@contextmanager
def unpacked_once(cache: Path) -> Iterator[None]:
    """Let the first process fill a cache of `datasets` in the block, and then the others use it.

    A cache that is unfinished or damaged is removed first.
    """
    first = process_rank() == 0
    if first:
        intact(cache)
    else:
        barrier()
    yield
    if first:
        if cache.exists():
            mark(cache)
        barrier()


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, or of the names and bytes of all files in a folder."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = (f"{file.relative_to(path).as_posix()} {content_digest(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
