"""How views for the terminal lay a decoder out: a column per layer, a ruler above."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

LINE = 60  # layers to a line
LABEL = 9  # columns before the first layer


def lines(n_layers: int) -> Iterator[range]:
    """Break a decoder into the layers of each line."""
    for start in range(0, n_layers, LINE):
        yield range(start, min(start + LINE, n_layers))


def ruler(layers: range) -> Text:
    """Every fifth layer's number over its column."""
    text = "layer".ljust(LABEL)
    for layer in layers:
        if layer % 5 == 0:
            text = text.ljust(LABEL + layer - layers.start) + str(layer)
    return Text(text, style="dim")
