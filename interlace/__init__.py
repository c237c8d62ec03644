"""Interlace: remove whole layers from vision-language and language models, then heal the rest.

From Python: `interlace.select` chooses the layers, `interlace.export` writes the checkpoint.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "export", "select"]

_HOMES = {"select": "interlace.selection.select", "export": "interlace.pruning.export"}


def __getattr__(name: str) -> Any:
    """Import a public call on first use, so that `select` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
