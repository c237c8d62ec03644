"""A choice in several rounds, each on scores measured after the round before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from interlace.errors import InputError
from interlace.methods.choice import Choice, Method, Request
from interlace.scores.table import Scores, ScoreTable, read_scores
from interlace.selection.protected import spared_sinks

Later: TypeAlias = "Sequence[ScoreTable] | Callable[[Choice], ScoreTable]"


def choose_in_rounds(rule: Method, request: Request, scores: Scores, later: Later) -> Choice:
    """Choose once, or in `select.rounds` rounds.

    Layers that a round tunes are neither dropped nor grouped by later ones; anchors are free again.

    Args:
        rule: the method.
        request: K and the free layers of all rounds together, in positions of the dense decoder.
        scores: of the dense model.
        later: scores of the pruned model before the second round, the third, ...; or a function
            that measures them, given the choice so far.

    Raises:
        InputError: fewer or other tables than the rounds need.
    """
    rounds = request.options.rounds
    if rounds == 1 and not later:
        return rule.choose(scores, request)
    if rounds > max(request.drops, 1):
        raise InputError(
            f"select.rounds = {rounds}: only {request.drops} layers are to go; lower it"
        )
    if not callable(later) and len(later) != rounds - 1:
        raise InputError(
            f"select.rounds = {rounds}: {len(later) + 1} were measured; measure all but the first"
        )
    choice, n_layers = Choice.of_groups([]), scores.n_layers
    for number in range(1, rounds + 1):
        if number > 1:
            scores = read_scores(later(choice) if callable(later) else later[number - 2])
        _check_survivors(scores, choice, n_layers, number)
        choice = add_round(rule, request, scores, choice, number)
    return choice


def _check_survivors(scores: Scores, choice: Choice, n_layers: int, number: int) -> None:
    """Refuse scores of another model than the rounds before leave of `n_layers` layers."""
    survivors = tuple(i for i in range(n_layers) if i not in choice.drop)
    if (scores.kept_layers or tuple(range(scores.n_layers))) != survivors:
        raise InputError(
            f"round {number} was measured on a model without other layers than"
            f" {sorted(choice.drop)}; measure the rounds again"
        )


def add_round(
    rule: Method, request: Request, scores: Scores, previous: Choice, number: int
) -> Choice:
    """Add one round's choice to that of the rounds before.

    Args:
        rule: the method.
        request: K and the free layers of all rounds together, in positions of the dense decoder.
        scores: of the model that the rounds before leave.
        previous: their choice, in positions of the dense decoder.
        number: of this round, from 1.

    Raises:
        InputError: the method cannot drop this round's share; says in which round.
    """
    survivors = scores.kept_layers or tuple(range(scores.n_layers))
    position = {layer: index for index, layer in enumerate(survivors)}
    rounds = request.options.rounds
    spared = spared_sinks(rule, request.options, scores) if number > 1 else frozenset()
    share = request.drops * number // rounds - request.drops * (number - 1) // rounds
    share_request = replace(
        request,
        drops=share,
        free=frozenset(position[i] for i in request.free - previous.drop - previous.tune) - spared,
        tuned_before=frozenset(position[i] for i in previous.tune),
    )
    try:
        choice = rule.choose(scores, share_request)
    except InputError as error:
        raise InputError(f"round {number} of {rounds}: {error}") from None
    groups = [
        group.model_copy(
            update={
                "layers": tuple(survivors[i] for i in group.layers),
                "drop": tuple(survivors[i] for i in group.drop),
                "tune": tuple(survivors[i] for i in group.tune),
                "anchor": None if group.anchor is None else survivors[group.anchor],
                "round": number,
            }
        )
        for group in choice.groups
    ]
    return Choice(
        groups=(*previous.groups, *groups),
        drop=previous.drop | {survivors[i] for i in choice.drop},
        tune=previous.tune | {survivors[i] for i in choice.tune},
        spared=previous.spared | {survivors[i] for i in spared},
    )
