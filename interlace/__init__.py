"""Interlace: remove whole layers from vision-language and language models, then heal the rest.

From Python: `measure` scores the layers, `select` chooses, `export` writes the checkpoint, `heal`
trains it, `evaluate` and `time_to_first_token` say what came of it. `prune` is the first three in
one. docs/python.md shows them.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
_HOMES = {
    "Plan": "interlace.plan.record",
    "draw": "interlace.report.figures.notebook",
    "evaluate": "interlace.evaluation.call",
    "export": "interlace.pruning.call",
    "heal": "interlace.healing.call",
    "measure": "interlace.measurements.measure",
    "prune": "interlace.pruning.prune",
    "read_plan": "interlace.plan.record",
    "register_method": "interlace.methods.registry",
    "select": "interlace.selection.select",
    "time_to_first_token": "interlace.speed.call",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public call on first use, so that `select` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List what is public, for tab completion."""
    return sorted(__all__)
