"""Plans of the study of healing on real weights, as the study of methods chose them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from interlace.methods.choice import Choice, Request
from interlace.params.choosing import Select
from interlace.params.section import validated
from interlace.plan.record import Plan, Tuned
from interlace.scores.table import SEARCH, Scores
from interlace.selection.by_rule import plan_by_rule
from studies.real_bench import SIMILARITY, measured
from studies.real_choices import COMPARED, score_table
from studies.real_healing_inputs import Inputs
from studies.real_rows import PLAIN, Row, read_rows

Layers = tuple[int, ...]


def plan_of(
    inputs: Inputs, method: str, ratio: float, tuned: Tuned, sets: Mapping[float, Layers]
) -> Plan:
    """Choose the layers to drop and to tune as the study of methods does, sink layers spared.

    Args:
        inputs: of the study.
        method: a name.
        ratio: of the decoder's layers to drop.
        tuned: see `Select`.
        sets: best sets of a search that was carried out before, by ratio.
    """
    rule, folders = COMPARED[method], {}
    if method == SEARCH and ratio in sets:
        rule = replace(rule, choose=partial(_of_set, sets[ratio]))
    elif method == SEARCH:
        folders = {SEARCH: measured(inputs.plans, SEARCH)}
    scores = score_table(measured(inputs.plans, SIMILARITY), folders)
    options = validated(Select, {"base": "all", "protect": "auto", "tuned": tuned}, "select")
    return plan_by_rule(scores, method, rule, ratio, options)


def _of_set(layers: Layers, scores: Scores, request: Request) -> Choice:
    return Choice.of_ranking([*layers], dict.fromkeys(layers, 0.0), scores, request)


def searched_sets(table: Path) -> dict[float, Layers]:
    """Return the best sets of the search that the study of methods lists, by ratio."""
    rows: list[Row] = read_rows(table) if table.is_file() else []
    found = (row for row in rows if (row.method, row.weights) == (SEARCH, PLAIN) and row.dropped)
    return {row.ratio: row.dropped for row in found if row.protect == "auto"}
