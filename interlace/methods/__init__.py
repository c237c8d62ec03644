"""How layers are chosen: the registry of methods."""

from __future__ import annotations

import difflib

from interlace.errors import InputError
from interlace.methods import baselines
from interlace.methods.choice import Choice, Group, Method, Request
from interlace.methods.interlace import interlace

METHODS: dict[str, Method] = {
    "interlace": interlace,
    "consecutive": baselines.consecutive,
    "random": baselines.random,
}

__all__ = ["METHODS", "Choice", "Group", "Method", "Request", "named"]


def named(name: str) -> Method:
    """Look a method up.

    Raises:
        InputError: there is none of that name; names the nearest one.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0)[0]
        raise InputError(
            f"method = {name!r}: no such method; did you mean {near}? ({', '.join(METHODS)})"
        )
    return METHODS[name]
