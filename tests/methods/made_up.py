"""Made-up score tables, and random requests to all methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from interlace.methods.choice import Request
from interlace.methods.registry import METHODS
from interlace.params.choosing import Policy, Select
from interlace.params.measuring import Mode
from interlace.plan.record import Plan
from interlace.scores.table import SINK_END, SINK_START, Scores
from interlace.selection.select import select_layers

POLICIES: tuple[Policy, ...] = ("pairs", "fewer", "error")


def table_for(
    method: str,
    rng: np.random.Generator,
    n_layers: int,
    decimals: int = 9,
    removable: list[int] | None = None,
    kept: tuple[int, ...] = (),
    mode: Mode = "residual",
) -> Scores:
    """What the method reads, of the `removable` layers or of all; few decimals make many ties.

    In mode `reference` no span that ends with the last layer has a score.
    """
    values: dict[tuple[str, int, int], float] = {}
    for criterion in METHODS[method].needs:
        end = n_layers - (mode == "reference" and criterion != "taylor")
        longest = {"cosine": 3, "angular": n_layers}.get(criterion, 1)
        for span in range(1, longest + 1):
            column = rng.random(n_layers - span + 1).round(decimals).tolist()
            starts = range(criterion == "cka", end - span + 1)  # cka compares with the layer before
            values |= {(criterion, first, span): column[first] for first in starts}
    if "sleb" in METHODS[method].needs:
        order = rng.permutation(range(n_layers) if removable is None else removable).tolist()
        values = {("sleb", i, 1): float(step) for step, i in enumerate(order)}
    if "search" in METHODS[method].needs:
        layers = range(n_layers) if removable is None else removable
        values = best_sets([rng.permutation(layers).tolist()[:k] for k in range(len(layers) + 1)])
    return Scores(n_layers, 0, values, {}, kept)


def best_sets(sets: list[list[int]]) -> dict[tuple[str, int, int], float]:
    """What a search writes of the best set of each size."""
    values = {(f"search/{len(drop)}", i, 1): 1.0 + len(drop) for drop in sets for i in drop}
    for drop in sorted(sets, key=len, reverse=True):
        values |= {("search", i, 1): float(len(drop)) for i in drop}
    return values


@dataclass(frozen=True)
class Question:
    """A table, and the request that a method gets about it."""

    scores: Scores
    method: str
    drops: int
    options: Select

    @property
    def free(self) -> list[int]:
        """The layers that are not protected."""
        first, last = self.options.protect_first, self.options.protect_last
        return list(range(int(first), self.scores.n_layers - int(last)))

    @property
    def request(self) -> Request:
        """What the method itself is asked."""
        return Request(self.drops, frozenset(self.free), self.options)

    def plan(self, scores: Scores | None = None) -> Plan:
        """The method's choice by this table, or by another."""
        return select_layers(scores or self.scores, self.method, self.drops, self.options)


def question(
    method: str,
    rng: np.random.Generator,
    case: int,
    longest: int = 100,
    mode: Mode = "residual",
) -> Question:
    """Sometimes a small decoder, sometimes a large one; sometimes more drops than there can be."""
    least = 4 if mode == "reference" else 3  # layers of which one triplet has a score
    n_layers = int(rng.integers(least, (longest if case % 4 == 0 else 12) + 1))
    first = int(rng.integers(0, min(4, n_layers)))
    last = int(rng.integers(0, min(3, n_layers - first)))
    free = list(range(first, n_layers - last))
    decimals = 9 if method == "mixed" else 1 + case % 3  # rounding decides on ties of its sums
    scores = table_for(method, rng, n_layers, decimals, removable=free, mode=mode)
    drops = int(rng.integers(1, min(n_layers - 1, len(free) + 2) + 1))
    options = Select(
        protect_first=first,
        protect_last=last,
        shortfall=POLICIES[case % 3],
        alpha=float(rng.choice([0.0, 0.3, 0.7, 1.0])),
    )
    return Question(scores, method, drops, options)


def table(criterion: str, *columns: list[float]) -> Scores:
    """A table of one criterion: of each layer, each pair, each triplet, in layer order."""
    values = {
        (criterion, first, span): value
        for span, column in enumerate(columns, start=1)
        for first, value in enumerate(column)
    }
    return Scores(len(columns[0]), 0, values, {})


def arrow_table(scores: Scores) -> pa.Table:
    """The same table as `score` writes it."""
    rows = [
        {"criterion": c, "first": f, "span": s, "value": v, "standard_error": None, "n": 1}
        for (c, f, s), v in scores.values.items()
    ]
    about = {"n_layers": str(scores.n_layers), "deepstack_layers": str(scores.deepstack_layers)}
    if scores.kept_layers:
        about["kept"] = " ".join(map(str, scores.kept_layers))
    return pa.Table.from_pylist(rows).replace_schema_metadata(about)


def everything(rng: np.random.Generator, n_layers: int, decimals: int = 9) -> Scores:
    """A table that serves every method, whose first and last layer stay where the paper says so."""
    values: dict[tuple[str, int, int], float] = {}
    for method in METHODS:
        inner = list(range(1, n_layers - 1))
        values |= table_for(method, rng, n_layers, decimals, removable=inner).values
    return Scores(n_layers, 0, values, {})


def with_sinks(scores: Scores, start: Sequence[int], end: Sequence[int] = ()) -> Scores:
    """The same table, in which these layers make and end a massive activation in all samples."""
    sinks = {
        (name, layer, 1): float(layer in layers)
        for name, layers in ((SINK_START, start), (SINK_END, end))
        for layer in range(scores.n_layers)
    }
    return replace(scores, values={**scores.values, **sinks})
