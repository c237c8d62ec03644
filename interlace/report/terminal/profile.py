"""The profile of scores over depth for the terminal."""

from __future__ import annotations

import numpy as np
from rich.text import Text

from interlace.report.facts.decision import sink_words
from interlace.report.facts.scale import nines
from interlace.report.terminal.strips import LABEL, SPAN_COLOURS, lines, ruler
from interlace.scores.sinks import sink_layers
from interlace.scores.table import NATIVE, Scores

SPAN_NAMES = {1: "S_1", 2: "S_2", 3: "S_3"}
BLOCKS = "▁▂▃▄▅▆▇█"


def profile_text(table: Scores) -> Text:
    """Show `S_1`, `S_2` and `S_3` over depth as bars; all share one scale of nines.

    Names the layers that make or end a massive activation.

    Args:
        table: the score table.

    Raises:
        InputError: the table holds no `cosine` of one layer.
    """
    measured_spans = {span for criterion, _, span in table.values if criterion == NATIVE}
    spans = {span: table.of_span(span) for span in sorted(measured_spans & set(SPAN_NAMES) | {1})}
    every = nines(np.array([value for values in spans.values() for value in values.values()]))
    low, high = float(every.min()), float(every.max())
    text = Text("cosine of a span's input and output, by its first layer\n", style="bold")
    for layers in lines(table.n_layers):
        text.append_text(ruler(layers))
        text.append("\n")
        for span, values in spans.items():
            text.append(SPAN_NAMES[span].ljust(LABEL))
            bars = [_block(values.get(layer), low, high) for layer in layers]
            text.append("".join(bars).rstrip() + "\n", style=SPAN_COLOURS[span])
    for span, values in spans.items():
        least, most = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
        text.append(f"{SPAN_NAMES[span].ljust(LABEL)}{values[least]:.4f} at layer {least}")
        text.append(f" to {values[most]:.4f} at layer {most}\n", style="")
    if (sinks := sink_layers(table)) and sinks.layers:
        text.append(f"{sink_words(sinks)}\n", style="yellow")
    text.rstrip()
    return text


def _block(value: float | None, low: float, high: float) -> str:
    if value is None:
        return " "
    share = (float(nines(np.array(value))) - low) / max(high - low, 1e-9)
    return BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)]
