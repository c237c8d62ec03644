"""How views lay a decoder out: a column per layer, neighbours together, a ruler above."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

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
