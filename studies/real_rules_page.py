"""The rules of compensation on the page of the study on real weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from studies.real_cosine import BATCH, RATES, STEPS
from studies.real_rows import PLAIN
from studies.real_table import Name, Table, label, percent, shown

WHOLE, MAP = "whole weight", "d x d map"
EVERY, CUTS = "all kept ones from the first cut on", "the last before each cut"
RELATIVE, SQUARED = "squared, relative to the length of the target", "squared"
MEANING = {  # what is fitted, in which layers, by which error
    "by inverse norm": (WHOLE, EVERY, RELATIVE),
    "all tokens": (WHOLE, EVERY, SQUARED),
    "without sinks": (WHOLE, EVERY, "squared, without massive tokens"),
    "weight before cuts": (WHOLE, CUTS, RELATIVE),
    "map by inverse norm": (MAP, CUTS, RELATIVE),
    "map before cuts": (MAP, CUTS, SQUARED),
    "cosine": (MAP, CUTS, "cosine distance"),
}
PAIRS = (  # two rules, and the difference between them
    ("weight before cuts", "by inverse norm", "All kept layers, not only those before cuts"),
    ("map by inverse norm", "weight before cuts", "The whole weight, not a map"),
    ("map before cuts", "map by inverse norm", "A map by relative errors, not by squared ones"),
    ("map by inverse norm", "cosine", "A map by the cosine, not by relative errors"),
    ("map before cuts", "cosine", "ReplaceMe's cosine, not its least squares"),
    ("by inverse norm", "cosine", "ReplaceMe's cosine, not the library's own rule"),
)
NOTE = f"""`map before cuts` and `cosine` are ReplaceMe's two objectives (arXiv 2505.02819).
The map is folded into the last weight of the MLP. `cosine` begins at `map by inverse norm` and
takes {STEPS} steps of Adam on {BATCH} tokens each. The learning rate is the one of
{", ".join(f"{rate:g}" for rate in RATES)} with the least distance on held-out calibration rows.
Each rule keeps a fit only where it lowers the loss on those rows.
"""


def compared_rules(table: Table, rules: Sequence[str]) -> Iterator[str]:
    """Set the rules side by side on the choices that several were tried on.

    Args:
        table: all rows.
        rules: of compensation.
    """
    cells = [
        (name, ratio)
        for ratio in table.ratios
        for name in table.names
        if sum(table.cell(name, ratio, rule) is not None for rule in rules) > 1
    ]
    if not cells:
        return
    yield "### Rules of compensation\n"
    tried = [rule for rule in rules if any(table.cell(*cell, rule) for cell in cells)]
    yield "| rule | fits | in layers | error |\n|---|---|---|---|"
    yield from (f"| {rule} | {' | '.join(MEANING[rule])} |" for rule in tried)
    yield f"\n{NOTE}"
    yield f"| rule | {' | '.join(f'{label(name)}, {percent(r)}' for name, r in cells)} |"
    yield "|---|" + "---:|" * len(cells)
    for rule in (PLAIN, *tried):
        yield f"| {rule} | {' | '.join(shown(table.cell(*cell, rule)) for cell in cells)} |"
    yield ""
    yield from _differences(table, cells)
    yield ""


def _differences(table: Table, cells: Sequence[tuple[Name, float]]) -> Iterator[str]:
    """Say of each pair of rules how the second changes the rise of the first."""
    for first, second, difference in PAIRS:
        changes = []
        for name, ratio in cells:
            pair = [table.cell(name, ratio, rule) for rule in (first, second)]
            rises = [cell.rise for cell in pair if cell]
            if len(rises) == len(pair):
                changes.append(rises[1] - rises[0])
        if changes:
            yield (
                f"- {difference}: lower on {sum(change < 0 for change in changes)} of"
                f" {len(changes)} choices, {fmean(changes):+.3f} on average"
                f" ({min(changes):+.3f} to {max(changes):+.3f})."
            )
