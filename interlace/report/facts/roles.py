"""What a plan makes of each layer, under one set of names, letters and colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

from rich.text import Text

from interlace.plan.record import Plan


class Role(Enum):
    """What happens to a layer: its letter, colour and meaning."""

    DROP = ("D", "#E4572E", "dropped")
    TUNE = ("T", "#1B998B", "tuned")
    ANCHOR = ("A", "#46648C", "frozen anchor")
    PROTECTED = ("P", "#93A1B5", "protected")
    FREEZE = ("F", "#D5DCE6", "frozen")

    @property
    def letter(self) -> str:
        """One capital, for maps in a terminal."""
        return self.value[0]

    @property
    def colour(self) -> str:
        """Hex colour, told apart by readers with any colour vision."""
        return self.value[1]

    @property
    def meaning(self) -> str:
        """The word for legends."""
        return self.value[2]


def layer_roles(plan: Plan) -> list[Role]:
    """The role of each layer, 0 to L-1.

    A layer with several is shown by what happens to it first: dropped, tuned, then anchor, then
    protected. (A protected layer may be tuned; it is never dropped.)
    """
    roles = [Role.FREEZE] * plan.n_layers
    for layer in plan.protected:
        roles[layer] = Role.PROTECTED
    for group in plan.groups:
        if group.anchor is not None:
            roles[group.anchor] = Role.ANCHOR
    for layer in plan.tune:
        roles[layer] = Role.TUNE
    for layer in plan.drop:
        roles[layer] = Role.DROP
    return roles


def roles_present(plan: Plan) -> list[Role]:
    """The roles that occur, in the order of a legend."""
    present = set(layer_roles(plan))
    return [role for role in Role if role in present]


LINE = 60  # layers to a line
LABEL = 9  # columns before the first layer


def lines(n_layers: int) -> Iterator[range]:
    """Break a decoder into the layers of each line."""
    for start in range(0, n_layers, LINE):
        yield range(start, min(start + LINE, n_layers))


def ruler(layers: range, label: int = LABEL) -> Text:
    """Every fifth layer's number over its column, the first of which follows `label` others."""
    text = "layer".ljust(label)
    for layer in layers:
        if layer % 5 == 0:
            text = text.ljust(label + layer - layers.start) + str(layer)
    return Text(text, style="dim")


def stretches(layers: Sequence[int]) -> list[range]:
    """Layers in order, neighbours together."""
    found: list[range] = []
    for layer in layers:
        if found and layer == found[-1].stop:
            found[-1] = range(found[-1].start, layer + 1)
        else:
            found.append(range(layer, layer + 1))
    return found
