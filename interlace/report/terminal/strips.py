"""Strips of layers for the terminal: a character per layer, under a ruler, in colour.

Colour is never the only sign: roles are letters. The terminal has a palette of its own, so that
another colour in a figure changes nothing that an earlier stage prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from interlace.report.facts.roles import Role

ROLE_COLOURS = {
    Role.DROP: "#E4572E",
    Role.TUNE: "#1B998B",
    Role.ANCHOR: "#46648C",
    Role.PROTECTED: "#93A1B5",
    Role.FREEZE: "#D5DCE6",
}
SPAN_COLOURS = {1: "#46648C", 2: "#D99A2B", 3: "#8E4585"}  # S_1, S_2, S_3
LINE = 60  # layers to a line
LABEL = 9  # columns before the first layer


def lines(n_layers: int) -> Iterator[range]:
    """Break a decoder into the layers of each line."""
    for start in range(0, n_layers, LINE):
        yield range(start, min(start + LINE, n_layers))


def ruler(layers: range, label: int = LABEL) -> Text:
    """Write each fifth layer's number over its column; the first follows `label` columns."""
    text = "layer".ljust(label)
    for layer in layers:
        if layer % 5 == 0:
            text = text.ljust(label + layer - layers.start) + str(layer)
    return Text(text, style="dim")


def glyph(role: Role) -> tuple[str, str]:
    """Return a role's letter and its style."""
    ink = "black" if role in (Role.FREEZE, Role.PROTECTED) else "bold white"
    return role.letter, f"{ink} on {ROLE_COLOURS[role]}"


def legend(roles: Sequence[Role], counted: Sequence[Role] = ()) -> Text:
    """Explain the letters, and count the layers of each."""
    text = Text()
    for role in roles:
        text.append(*glyph(role))
        text.append(f" {role.meaning}{f' {counted.count(role)}' if counted else ''}  ")
    text.rstrip()
    return text
