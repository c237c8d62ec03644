"""Folders for the unfinished work of a call, from which the same call resumes."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

import interlace
from interlace.printable import say
from interlace.system.locks import locked
from interlace.system.outputs import remove


@contextmanager
def work_root(folder: Path | str | None) -> Iterator[Path]:
    """Yield the folder that holds the work of several calls; `None`: a temporary one."""
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="interlace-") as temporary:
        yield Path(temporary)


@contextmanager
def unfinished(root: Path, call: str, *inputs: BaseModel | str) -> Iterator[Path]:
    """Hold the folder of a call's work: one per version and inputs. A second call waits for it.

    It is removed when the block succeeds.

    Args:
        root: see `work_root`.
        call: its name.
        inputs: all that its work depends on.
    """
    texts = [item if isinstance(item, str) else item.model_dump_json() for item in inputs]
    digest = hashlib.sha256(repr([interlace.__version__, *texts]).encode()).hexdigest()[:16]
    folder = root / call / digest
    with locked(folder.with_suffix(".lock"), lambda sentence: say(sentence, error=True)):
        yield folder
        remove(folder)
