"""Layers that a choice may not touch."""

from __future__ import annotations

from interlace.methods.choice import Method
from interlace.params.choosing import Auto


def protected_layers(
    rule: Method,
    n_layers: int,
    deepstack_layers: int,
    protect_first: int | Auto = "auto",
    protect_last: int | Auto = "auto",
) -> list[int]:
    """Return the layers that are never dropped nor grouped.

    Args:
        rule: of the method, whose paper `auto` follows.
        n_layers: L, of the decoder.
        deepstack_layers: leading layers that receive DeepStack features, added by position.
        protect_first: leading layers; `auto`: the DeepStack layers, and those of the method's rule.
        protect_last: trailing layers; `auto`: those of the method's rule.
    """
    first = max(deepstack_layers, rule.protect_first) if protect_first == "auto" else protect_first
    last = rule.protect_last if protect_last == "auto" else protect_last
    return [i for i in range(n_layers) if i < first or i >= n_layers - last]
