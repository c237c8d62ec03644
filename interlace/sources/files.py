"""The Parquet files of a data set: hidden ones are none, links are followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from interlace.errors import InputError

_HIDDEN = (".", "_")


def is_hidden(name: str) -> bool:
    """Return true for the name of a file or folder that is no data."""
    return name.startswith(_HIDDEN)


def is_data(name: str) -> bool:
    """Return true for the path of a Parquet file below a data set's root that is not hidden.

    Names that begin with a dot or an underscore are those of copies, caches and logs, of files as
    of folders.
    """
    names = PurePosixPath(name).parts
    return name.endswith(".parquet") and not any(map(is_hidden, names))


def parquet_files(folder: Path) -> list[Path]:
    """List the Parquet files below a folder by name, those below linked folders too.

    Raises:
        InputError: a link leads nowhere or in a circle, or a file is no regular file or cannot be
            read; names it.
    """
    paths = (path for path in _walk(folder, ()) if is_data(path.relative_to(folder).as_posix()))
    return sorted(map(checked_file, paths))


def _walk(folder: Path, parents: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in parents:
        raise InputError(f"{folder}: a link in a circle, to {real}; remove it")
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); allow it") from None
    for path in entries:
        if is_hidden(path.name):
            continue
        if path.suffix in ("", ".parquet"):
            _check_link(path)
        if path.is_dir():
            yield from _walk(path, (*parents, real))
        else:
            yield path


def checked_file(path: Path) -> Path:
    """Return the path of a file that can be opened and whose name can be written down.

    Raises:
        InputError: a link leads nowhere, or it is no regular file, or cannot be read.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"{os.fsencode(path)!r}: a name that is not UTF-8; rename it") from None
    _check_link(path)
    if not path.is_file():
        raise InputError(f"{path}: not a regular file; remove it, or put a Parquet file there")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be read (permission denied); allow it")
    return path


def _check_link(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        raise InputError(f"{path}: a link to {target}, which is not there; mend or remove it")
