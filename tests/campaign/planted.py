"""Faults planted in the product, to see that the campaign counts them."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import interlace.scores.table
import interlace.system.outputs


@contextlib.contextmanager
def _whole_in_place(path: Path) -> Iterator[Path]:
    path.unlink(missing_ok=True)
    yield path


def in_place() -> None:
    """Write outputs in place, not beside it."""
    interlace.system.outputs.whole = _whole_in_place


def process_in_output() -> None:
    """Write the process's number into each JSON file."""
    dumps = json.dumps
    json.dumps = lambda value, **options: dumps([os.getpid(), value], **options)


def traceback() -> None:
    """Raise another error than ours where the scores are read."""

    def reading(*_: Any, **__: Any) -> Any:
        raise KeyError("value")

    interlace.scores.table.read_scores = reading


def hang() -> None:
    """Never end."""
    interlace.scores.table.read_scores = lambda *_, **__: time.sleep(3600)
