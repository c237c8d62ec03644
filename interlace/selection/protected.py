"""Layers that a choice may not touch, by the reason."""

from __future__ import annotations

from collections.abc import Iterable

from interlace.errors import InputError
from interlace.methods.choice import Method
from interlace.params.choosing import Protection
from interlace.plan.record import Reason
from interlace.scores.sinks import sink_layers
from interlace.scores.table import Scores


def protected_layers(
    rule: Method, n_layers: int, deepstack_layers: int, options: Protection
) -> dict[Reason, list[int]]:
    """Return the layers that are never dropped nor grouped, as far as is known before measuring.

    Args:
        rule: of the method, whose paper may protect layers at both ends.
        n_layers: L, of the decoder.
        deepstack_layers: leading layers that receive DeepStack features, added by position.
        options: what the user protects; see `Protection`.

    Returns:
        By reason, each layer once, under the first of its reasons.

    Raises:
        InputError: `protect` names a layer that the decoder does not have.
    """
    if isinstance(options.protect, tuple):
        return _disjoint(n_layers, user=_existing(options.protect, n_layers))
    first, last = options.protect_first, options.protect_last
    user: set[int] = set() if first == "auto" else {*range(first)}
    paper: set[int] = {*range(rule.protect_first)} if first == "auto" else set()
    fed = {*range(deepstack_layers)} if first == "auto" and options.protect == "auto" else set()
    ends = user if last != "auto" else paper
    ends |= {*range(n_layers - (rule.protect_last if last == "auto" else last), n_layers)}
    return _disjoint(n_layers, user=user, deepstack=fed, paper=paper)


def _existing(layers: Iterable[int], n_layers: int) -> set[int]:
    if outside := [layer for layer in layers if layer >= n_layers]:
        raise InputError(
            f"select.protect = {list(layers)}: layer {outside[0]} is not one of the layers 0 to"
            f" {n_layers - 1}; leave it out"
        )
    return {*layers}


def _disjoint(n_layers: int, **layers_by_reason: Iterable[int]) -> dict[Reason, list[int]]:
    """Keep each layer under its first reason; leave out reasons without layers."""
    free, disjoint = {*range(n_layers)}, {}
    for reason, layers in layers_by_reason.items():
        if new := free & {*layers}:
            disjoint[reason] = sorted(new)
        free -= new
    return disjoint  # type: ignore[return-value]


def spared_sinks(rule: Method, options: Protection, scores: Scores) -> frozenset[int]:
    """Return the layers that are spared because they make or end a massive activation.

    Args:
        rule: of the method; none are spared where its losses see what a sink is worth.
        options: `protect: auto` spares them.
        scores: of the model that layers are dropped from, whose positions count.
    """
    sinks = sink_layers(scores)
    if sinks is None or options.protect != "auto" or not rule.spares_sinks or not rule.removes:
        return frozenset()
    return frozenset(sinks.layers)


def layers_of(protected: dict[Reason, list[int]]) -> list[int]:
    """Return all protected layers, in order."""
    return sorted(layer for layers in protected.values() for layer in layers)
