"""Training that is cut off, as by control-C."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


def interrupt(monkeypatch: pytest.MonkeyPatch, module: ModuleType, call: int) -> list[Any]:
    """Let a module's `update` raise KeyboardInterrupt in one of its calls, counted from 1.

    Returns:
        What it was called with so far; it grows.
    """
    update, calls = module.update, []

    def interrupting(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return update(*args)

    monkeypatch.setattr(module, "update", interrupting)
    return calls
