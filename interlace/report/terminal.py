"""Views for the terminal, as rich renderables: the caller prints them.

Colour is never the only sign: roles are letters, and everything fits 80 columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from interlace.plan import Plan
from interlace.report.palette import SPAN_COLOURS
from interlace.report.roles import Role, layer_roles, roles_present
from interlace.report.scale import nines
from interlace.report.summary import Metrics, benchmarks_of
from interlace.scores import Scores, read_scores

LINE = 60  # layers to a line
LABEL = 9  # columns before the first layer
MISSING = "\u2013"
BLOCKS = "▁▂▃▄▅▆▇█"
SPAN_NAMES = {1: "S_1", 2: "S_2", 3: "S_3"}


def _lines(n_layers: int) -> Iterator[range]:
    for start in range(0, n_layers, LINE):
        yield range(start, min(start + LINE, n_layers))


def _ruler(layers: range) -> Text:
    """Every fifth layer's number over its column."""
    text = "layer".ljust(LABEL)
    for layer in layers:
        if layer % 5 == 0:
            text = text.ljust(LABEL + layer - layers.start) + str(layer)
    return Text(text, style="dim")


def _glyph(role: Role) -> tuple[str, str]:
    ink = "black" if role in (Role.FREEZE, Role.PROTECTED) else "bold white"
    return role.letter, f"{ink} on {role.colour}"


def _brackets(plan: Plan) -> str:
    """A mark under each group of two layers or more, one character per layer."""
    marks = [" "] * plan.n_layers
    for group in plan.groups:
        if group.span > 1:
            inside = "─" * (group.span - 2)
            marks[group.first : group.first + group.span] = f"└{inside}┘"
    return "".join(marks)


def layer_map_text(plan: Plan) -> Text:
    """One letter per layer, its group underneath, and what the letters mean."""
    roles, brackets = layer_roles(plan), _brackets(plan)
    text = Text(f"{plan.method} at {100 * plan.ratio:g}%: {plan.n_layers} layers, ", style="bold")
    text.append(f"{len(plan.keep)} kept\n")
    for layers in _lines(plan.n_layers):
        text.append_text(_ruler(layers))
        text.append("\n" + "dense".ljust(LABEL))
        for layer in layers:
            text.append(*_glyph(roles[layer]))
        if marks := brackets[layers.start : layers.stop].rstrip():
            text.append("\n" + "groups".ljust(LABEL) + marks)
        text.append("\n")
    for layers in _lines(len(plan.keep)):
        text.append("pruned".ljust(LABEL))
        for position in layers:
            text.append(*_glyph(roles[plan.keep[position]]))
        text.append("\n")
    text.append(" " * LABEL)
    for role in roles_present(plan):
        text.append(*_glyph(role))
        text.append(f" {role.meaning} {roles.count(role)}  ")
    text.rstrip()
    if note := shortfall_note(plan):
        text.append(f"\n{note}", style="yellow")
    return text


def shortfall_note(plan: Plan) -> str:
    """What happened when the method's own rule could not reach K; empty when it could."""
    short = plan.shortfall
    if short.missing:
        return f"{short.wanted} drops wanted, {short.missing} not made: triplets ran out"
    if short.pairs:
        return f"triplets ran out: {short.pairs} of {short.wanted} drops come from pairs"
    return ""


def profile_text(scores: Scores | pa.Table | Path | str) -> Text:
    """`S_1`, `S_2` and `S_3` over depth as bars; all share one scale of nines.

    Args:
        scores: the score table, read or not.
    """
    table = scores if isinstance(scores, Scores) else read_scores(scores)
    measured = {span for _, _, span in table.values} & set(SPAN_NAMES)
    spans = {span: table.of_span(span) for span in sorted(measured)}
    every = nines(np.array([value for values in spans.values() for value in values.values()]))
    low, high = float(every.min()), float(every.max())
    text = Text("cosine of a span's input and output, by its first layer\n", style="bold")
    for layers in _lines(table.n_layers):
        text.append_text(_ruler(layers))
        text.append("\n")
        for span, values in spans.items():
            text.append(SPAN_NAMES[span].ljust(LABEL))
            bars = [_block(values.get(layer), low, high) for layer in layers]
            text.append("".join(bars).rstrip() + "\n", style=SPAN_COLOURS[span])
    for span, values in spans.items():
        least, most = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
        text.append(f"{SPAN_NAMES[span].ljust(LABEL)}{values[least]:.4f} at layer {least}")
        text.append(f" to {values[most]:.4f} at layer {most}\n", style="")
    text.rstrip()
    return text


def _block(value: float | None, low: float, high: float) -> str:
    if value is None:
        return " "
    share = (float(nines(np.array(value))) - low) / max(high - low, 1e-9)
    return BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)]


def summary_table(summary: Metrics, left_out: Mapping[str, str] | None = None) -> RenderableType:
    """Scores and retention per benchmark, then layers, parameters and time to first token.

    Args:
        summary: what `summarise` returned, or `metrics/summary.json` as read.
        left_out: benchmarks without a result, and why.
    """
    parts: list[RenderableType] = [_scores_table(summary), _facts(summary)]
    if left_out:
        parts.append(Text("left out of the means:", style="yellow"))
        parts += [Text(f"  {name}: {why}", style="dim") for name, why in left_out.items()]
    return Group(*parts)


def _scores_table(summary: Metrics) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, show_footer=True, pad_edge=False)
    table.add_column("benchmark", footer="mean", overflow="fold")
    headings = (
        ("dense", "score_dense", Role.ANCHOR.colour),
        ("pruned", "score_pruned", Role.DROP.colour),
        ("tuned", "score_tuned", Role.TUNE.colour),
        ("pruned\nof dense", "retention_pruned", Role.DROP.colour),
        ("tuned\nof dense", "retention_tuned", Role.TUNE.colour),
    )
    keys = ("dense", "pruned", "tuned", "retention_pruned", "retention_tuned")
    for (heading, mean, colour), key in zip(headings, keys, strict=True):
        footer = _number(summary.get(mean), percent=key.startswith("retention"))
        table.add_column(
            heading, footer=footer, justify="right", no_wrap=True, header_style=f"bold {colour}"
        )
    for name in benchmarks_of(summary):
        cells = [
            _number(summary.get(f"{key}/{name}"), percent=key.startswith("retention"))
            for key in keys
        ]
        table.add_row(name, *cells)
    return table


def _number(value: float | None, *, percent: bool = False) -> str:
    if value is None:
        return MISSING
    return f"{value:.1f}%" if percent else f"{value:.1f}"


def _facts(summary: Metrics) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in _fact_lines(summary):
        table.add_row(name, text)
    return table


def _fact_lines(summary: Metrics) -> Sequence[tuple[str, str]]:
    before, after = summary["parameters_before"], summary["parameters_after"]
    lines = [
        (
            "layers",
            f"{summary['layers_before']} → {summary['layers_after']}"
            f"   ({summary['layers_tuned']} tuned)",
        ),
        ("parameters", f"{_size(before)} → {_size(after)}   ({100 * (after / before - 1):+.1f}%)"),
    ]
    if "ttft_speedup" in summary:
        low, high = summary["ttft_speedup_low"], summary["ttft_speedup_high"]
        lines.append(
            (
                "first token",
                f"{summary['ttft_speedup']:.2f}x as fast [{low:.2f}, {high:.2f}],"
                f" ideal {summary['ttft_ideal']:.2f}x"
                f"   ({summary['ttft_dense_ms']:.1f} → {summary['ttft_tuned_ms']:.1f} ms)",
            )
        )
    if "prefill_speedup" in summary:
        ideal = summary.get("prefill_ideal")
        text = f"{summary['prefill_speedup']:.2f}x as fast"
        lines.append(("prefill", text + (f", ideal {ideal:.2f}x" if ideal else "")))
    return lines


def _size(parameters: float) -> str:
    for unit, scale in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= scale:
            return f"{parameters / scale:.2f}{unit}"
    return str(int(parameters))
