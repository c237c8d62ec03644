"""Work that is cut off, as by control-C."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def interrupt(
    monkeypatch: pytest.MonkeyPatch, owner: Any, call: int = -1, name: str = "update"
) -> list[Any]:
    """Let a function of a module or class raise KeyboardInterrupt in its nth call, if any.

    Return the arguments of its calls so far; the list grows.
    """
    function, calls = getattr(owner, name), []

    def interrupting(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, interrupting)
    return calls


def damage(scratch: Path) -> None:
    """Empty all files of unfinished work, as a power cut may."""
    files = [path for path in scratch.rglob("*") if path.is_file()]
    assert files
    for path in files:
        path.unlink()  # it may be a link to an input
        path.touch()
