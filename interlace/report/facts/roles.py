"""Roles of layers in a plan, under one set of names and letters."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from interlace.plan.record import Plan
from interlace.plan.removals import Removal


class Role(Enum):
    """The role of a layer: its letter and meaning."""

    DROP = ("D", "dropped")
    TUNE = ("T", "tuned")
    ANCHOR = ("A", "frozen anchor")
    PROTECTED = ("P", "protected")
    FREEZE = ("F", "frozen")

    @property
    def letter(self) -> str:
        """One capital, for strips in a terminal."""
        return self.value[0]

    @property
    def meaning(self) -> str:
        """The word for legends."""
        return self.value[1]


def layer_roles(plan: Plan | Removal) -> list[Role]:
    """Return the role of each layer, 0 to L-1.

    A layer with several is shown by the first of dropped, tuned, anchor and protected. (A protected
    layer may be tuned; it is never dropped.)
    """
    if isinstance(plan, Plan):
        anchors = [group.anchor for group in plan.groups if group.anchor is not None]
    else:
        anchors = list(plan.anchors)
    roles = [Role.FREEZE] * plan.n_layers
    for role, layers in (
        (Role.PROTECTED, plan.protected),
        (Role.ANCHOR, anchors),
        (Role.TUNE, plan.tune),
        (Role.DROP, plan.drop),
    ):
        for layer in layers:
            roles[layer] = role
    return roles


def roles_present(plan: Plan) -> list[Role]:
    """Return the roles that occur, in the order of a legend."""
    present = set(layer_roles(plan))
    return [role for role in Role if role in present]


def stretches(layers: Sequence[int]) -> list[range]:
    """Return layers in order, neighbours together."""
    runs: list[range] = []
    for layer in layers:
        if runs and layer == runs[-1].stop:
            runs[-1] = range(runs[-1].start, layer + 1)
        else:
            runs.append(range(layer, layer + 1))
    return runs
