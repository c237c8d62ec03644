"""Work that is cut off, as by control-C."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


def interrupt(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, call: int = -1, name: str = "update"
) -> list[Any]:
    """Let a module's function raise KeyboardInterrupt in one of its calls.

    Args:
        monkeypatch: takes it back.
        module: the module whose name is replaced.
        call: counted from 1; none by default.
        name: of the function.

    Returns:
        The arguments of its calls so far; it grows.
    """
    function, calls = getattr(module, name), []

    def interrupting(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, interrupting)
    return calls
