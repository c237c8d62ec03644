"""The forecast of a run for the terminal; fits 80 columns. The caller prints it."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD

from interlace.project.forecast.forecast import Forecast, StageForecast
from interlace.project.forecast.machine import GIB
from interlace.report.terminal.console import PlainTable


def forecast_table(computed: Forecast) -> PlainTable:
    """Return a line for each stage, and the total; fits 80 columns."""
    table = PlainTable(
        box=SIMPLE_HEAD, show_edge=False, show_footer=True, pad_edge=False, padding=0
    )
    total = sum(stage.cost.seconds for stage in computed.stages)
    peak = max(stage.memory.peak for stage in computed.stages if stage.memory)
    table.add_column("stage", footer="total", no_wrap=True)
    footers = [""] * 5 + [_gib(peak), _amount(computed.disk_peak), _hours(total)]
    headings = ["weights", "states", "grads", "optim.", "cache", "GiB", "disk", "hours"]
    tokens = _amount(sum(stage.cost.tokens for stage in computed.stages))
    for heading, footer in zip(["tokens", *headings], [tokens, *footers], strict=True):
        table.add_column(heading, footer=footer, justify="right", no_wrap=True)
    for stage in computed.stages:
        table.add_row(stage.name, _amount(stage.cost.tokens), *_cells(stage))
    return table


def _cells(stage: StageForecast) -> list[str]:
    cells = [""] * 6
    if memory := stage.memory:
        shares = (memory.weights, memory.activations, memory.gradients, memory.optimizer)
        sizes = (*shares, memory.cache, memory.peak)
        cells = [_gib(size) for size in sizes]
    return [*cells, _amount(stage.disk.stays + stage.disk.passes), _hours(stage.cost.seconds)]


def _amount(number: float) -> str:
    """Format tokens or bytes: 1.2G."""
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.1f}{unit}"
    return f"{number:.0f}" if number else ""


def _gib(size: float) -> str:
    """Format a share of memory in GiB; less than 5 MiB is nothing."""
    return f"{size / GIB:.2f}" if size >= GIB / 200 else ""


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f}"
