"""All methods in the terminal: the criteria they read, and the layers they would remove."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from interlace.methods.registry import METHODS
from interlace.plan.removals import Removal
from interlace.printable import printable
from interlace.report.facts.decision import percent
from interlace.report.facts.roles import Role, layer_roles
from interlace.report.terminal.console import PlainTable, plain_text
from interlace.report.terminal.strips import glyph, legend, lines, ruler
from interlace.scores.table import HOW_TO_MEASURE, Scores
from interlace.selection.removals import removals

NAMES = 18  # columns before the first layer: the longest name and a space


def rule_of(method: str) -> str:
    """Return a method's rule in one sentence: the first line of its function's docstring."""
    lines_of_it = (METHODS[method].choose.__doc__ or "").strip().splitlines()
    return lines_of_it[0].replace("`", "") if lines_of_it else ""


def methods_table(scores: Scores | None = None) -> RenderableType:
    """List all methods: their rules, and the criteria they read, measured or not.

    Args:
        scores: the score table to look in, if there is one.
    """
    table = PlainTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("method", no_wrap=True)
    if scores:
        table.add_column("measured", no_wrap=True)
    table.add_column("what it does, and what it reads")
    missing: dict[str, str] = {}
    for name, rule in METHODS.items():
        lacking = [need for need in rule.needs if scores and need not in scores.criteria]
        missing |= {need: HOW_TO_MEASURE.get(need, "") for need in lacking}
        cells = [name, "no" if lacking else "yes"] if scores else [name]
        rule_text = Text(rule_of(name)).append(
            f" [{', '.join(rule.needs) or 'nothing'}]", style="cyan"
        )
        table.add_row(*cells, rule_text, style="dim" if lacking else "")
    return Group(table, *_missing(missing.items()))


def _missing(ways: Iterable[tuple[str, str]]) -> list[Text]:
    """Return one line per way to measure something, naming all that it measures."""
    by_way: dict[str, list[str]] = {}
    for criterion, remedy in ways:
        by_way.setdefault(remedy, []).append(criterion)
    return [
        Text(f"not measured: {', '.join(names)}; {remedy}", style="yellow")
        for remedy, names in by_way.items()
    ]


def removals_text(scores: Scores, ratio: float, *, seed: int = 0) -> RenderableType:
    """Show by method a letter per layer, the meaning of the letters, and the rule.

    Args:
        scores: the score table.
        ratio: share of the layers, as each method's paper counts them.
        seed: of methods that draw.
    """
    strips = removals(scores, (ratio,), seed=seed)
    blocks: list[RenderableType] = [
        Text(f"at {percent(ratio)}, of {scores.n_layers} layers", style="bold"),
        ruler(next(lines(scores.n_layers)), NAMES),
    ]
    for removal in strips:
        blocks.append(_strip(removal))
        if not removal.reason:
            blocks.append(Padding(Text(rule_of(removal.method), style="dim"), (0, 0, 0, 2)))
    present = {role for strip in strips if not strip.reason for role in layer_roles(strip)}
    return Group(*blocks, legend([role for role in Role if role in present]))


def _strip(removal: Removal) -> Text:
    text = plain_text(removal.method.ljust(NAMES), "bold")
    if removal.reason:
        return text.append(printable(removal.reason), style="not bold yellow")
    roles = layer_roles(removal)
    for line, layers in enumerate(lines(removal.n_layers)):
        if line:
            text.append(f"\n{f'from {layers.start}':>{NAMES - 1}} ", style="not bold dim")
        for layer in layers:
            text.append(*glyph(roles[layer]))
    return text
