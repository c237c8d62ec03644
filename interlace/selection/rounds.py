"""A choice in several rounds: each on what was measured after the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from interlace.errors import InputError
from interlace.methods.choice import Choice, Method, Request
from interlace.scores.table import Scores, read_scores

Table: TypeAlias = Path | str | pa.Table
Later: TypeAlias = "Sequence[Table | Scores] | Callable[[Choice], Table | Scores]"


def choose_in_rounds(
    rule: Method, request: Request, table: Scores, rounds: int, later: Later
) -> Choice:
    """Ask a method once, or in steps, each on what was measured after the step before.

    Layers that a round tunes are neither dropped nor grouped by later ones; anchors are free again.

    Args:
        rule: the method.
        request: what is asked of all rounds together, in positions of the dense decoder.
        table: scores of the dense model.
        rounds: how many steps.
        later: scores of the pruned model before the second step, the third, ...; or a function
            that measures them, given the choice so far.

    Raises:
        InputError: fewer or other tables than the rounds need.
    """
    if rounds == 1 and not later:
        return rule.choose(table, request)
    if rounds > max(request.drops, 1):
        raise InputError(
            f"select.rounds = {rounds}: only {request.drops} layers are to go; lower it"
        )
    if not callable(later) and len(later) != rounds - 1:
        raise InputError(
            f"select.rounds = {rounds}: {len(later) + 1} were measured; run `dvc repro rounds`"
        )
    made = Choice.of_groups([])
    for number in range(1, rounds + 1):
        source: Table | Scores = table
        if number > 1:
            source = later(made) if callable(later) else later[number - 2]
        current = source if isinstance(source, Scores) else read_scores(source)
        left = tuple(i for i in range(table.n_layers) if i not in made.drop)
        if (current.kept or tuple(range(current.n_layers))) != left:
            raise InputError(
                f"round {number} was measured on a model without other layers than"
                f" {sorted(made.drop)}; run `dvc repro rounds`"
            )
        made = next_round(rule, request, current, made, number, rounds)
    return made


def next_round(
    rule: Method, request: Request, table: Scores, made: Choice, number: int, rounds: int
) -> Choice:
    """Add one round's choice to what earlier rounds made.

    Args:
        rule: the method.
        request: what is asked of all rounds together, in positions of the dense decoder.
        table: scores of the model that the earlier rounds leave.
        made: what these chose, in positions of the dense decoder.
        number: of this round, from 1.
        rounds: how many there are.
    """
    kept = table.kept or tuple(range(table.n_layers))
    position = {layer: place for place, layer in enumerate(kept)}
    share = request.drops * number // rounds - request.drops * (number - 1) // rounds
    asked = replace(
        request,
        drops=share,
        free=frozenset(position[i] for i in request.free - made.drop - made.tune),
        tuned=frozenset(position[i] for i in made.tune),
    )
    choice = rule.choose(table, asked)
    groups = [
        group.model_copy(
            update={
                "layers": tuple(kept[i] for i in group.layers),
                "drop": tuple(kept[i] for i in group.drop),
                "tune": tuple(kept[i] for i in group.tune),
                "anchor": None if group.anchor is None else kept[group.anchor],
                "round": number,
            }
        )
        for group in choice.groups
    ]
    return Choice(
        groups=(*made.groups, *groups),
        drop=made.drop | {kept[i] for i in choice.drop},
        tune=made.tune | {kept[i] for i in choice.tune},
    )
