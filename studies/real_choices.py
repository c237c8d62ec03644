"""The layers that each method drops from the real model, with and without protection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pyarrow.parquet as pq

from interlace.errors import InputError
from interlace.methods.choice import Choice, Method, Request
from interlace.methods.registry import METHODS
from interlace.params.choosing import Select
from interlace.params.section import validated
from interlace.plan.record import Plan
from interlace.scores.average import score
from interlace.scores.table import SLEB, Scores, read_scores
from interlace.selection.by_rule import plan_by_rule
from interlace.selection.feasible import ON_PROBES
from studies.real_rows import Row

RATIOS = (0.1, 0.25, 0.4)
PROTECTIONS = ("none", "auto")
SEEDS = range(5)  # of `random`, which is drawn without protection alone
SINGLE = "single losses"
NOT_COMPARED = frozenset({"manual", "dense-ft"})  # drop the layers of a list, or none
NOT_SERVED = tuple(name for name, method in METHODS.items() if ON_PROBES & set(method.needs))
RULES = {
    name: method for name, method in METHODS.items() if name not in NOT_COMPARED and method.removes
}


def score_table(hidden_states: Path, sensitivity: Mapping[str, Path]) -> Scores:
    """Average the measurements, and add those of the loss.

    Args:
        hidden_states: folder that `collect` wrote.
        sensitivity: folders that `measurements.sensitivity` wrote, by criterion. The first step of
            SLEB is the loss without each layer alone.
    """
    pooled = hidden_states / "pooled"
    table = score(
        hidden_states / "similarity",
        pooled if pooled.is_dir() else None,
        sinks=hidden_states / "sinks",
    )
    scores = read_scores(table)
    values = dict(scores.values)
    for criterion, folder in sensitivity.items():
        values |= read_scores(folder / "scores.parquet").values
        if criterion == SLEB:
            values |= {(SINGLE, layer, 1): loss for layer, loss in single_losses(folder).items()}
    return replace(scores, values=values)


def single_losses(sleb: Path) -> dict[int, float]:
    """Return the loss without each layer alone: the first step in the folder of SLEB's tables."""
    rows = pq.read_table(sleb / "candidates.parquet").to_pylist()
    return {row["layer"]: row["loss"] for row in rows if row["step"] == 0}


def of_smallest(scores: Scores, request: Request) -> Choice:
    """Drop the K layers without which, each alone, the loss is smallest."""
    losses = scores.of_span(1, SINGLE)
    order = sorted(request.free & losses.keys(), key=lambda layer: (losses[layer], layer))
    return Choice.of_ranking(order, losses, scores, request)


RULES[SINGLE] = Method(of_smallest, needs=(SINGLE,), spares_sinks=False)
COMPARED = {name: rule for name, rule in RULES.items() if name not in NOT_SERVED}  # without probes


def choices(scores: Scores, methods: Iterable[str], ratios: Sequence[float] = RATIOS) -> list[Row]:
    """Return a row for each method, ratio, protection and seed; some explain why there is none.

    Args:
        scores: with all criteria that the methods read.
        methods: of `RULES`.
        ratios: of the decoder's layers to drop.
    """
    cells = product(methods, ratios, PROTECTIONS)
    return [_choice(scores, *cell, seed) for cell in cells for seed in seeds(cell[0], cell[2])]


def seeds(method: str, protect: str) -> Sequence[int]:
    """Return the seeds of a method's draws."""
    if method != "random":
        return (0,)
    return SEEDS if protect == "none" else ()


def finalists(search: Path, size: int, count: int) -> list[tuple[int, ...]]:
    """Return the sets of a size that a search found best on all of its rows, the best first.

    Args:
        search: folder that `measurements.sensitivity` wrote.
        size: layers of a set.
        count: sets, at most.
    """
    rows = pq.read_table(search / "candidates.parquet").to_pylist()
    losses = {tuple(row["drop"]): row["loss"] for row in rows if row["rows"] == "all"}
    return sorted((drop for drop in losses if len(drop) == size), key=losses.__getitem__)[:count]


def _choice(scores: Scores, method: str, ratio: float, protect: str, seed: int) -> Row:
    row = Row(method, ratio, protect, seed)
    try:
        plan = plan_of(scores, method, ratio, protect, seed=seed)
    except InputError as error:
        return replace(row, reason=str(error))
    return replace(row, dropped=tuple(plan.drop))


def plan_of(scores: Scores, method: str, ratio: float, protect: str, *, seed: int = 0) -> Plan:
    """Choose the layers to drop and to tune, as all methods do here: of all layers.

    Args:
        scores: with all criteria that the method reads.
        method: of `RULES`.
        ratio: of the decoder's layers to drop.
        protect: see `Select`.
        seed: of a draw.

    Raises:
        InputError: the ratio cannot be reached.
    """
    options = validated(Select, {"base": "all", "protect": protect}, "select")
    return plan_by_rule(scores, method, RULES[method], ratio, options, seed=seed)
