"""Choices by the loss on answers: SLEB (arXiv 2402.09025), a search, and Taylor importance.

All read the measurements of the `sensitivity` stage.
"""

from __future__ import annotations

from collections.abc import Sequence

from interlace.errors import InputError
from interlace.methods.choice import Choice, Request, attainable
from interlace.scores.table import SEARCH, SLEB, TAYLOR, Scores


def sleb(scores: Scores, request: Request) -> Choice:
    """Drop the first K layers in the order in which their removal hurt the pruned model least.

    Removals are nested: the order measured for the largest ratio serves every smaller one.

    Raises:
        InputError: fewer removals were measured, or other layers were protected then.
    """
    removal = scores.of_span(1, SLEB)
    order = sorted(removal, key=lambda i: removal[i])
    drops = attainable(request, len(request.free), "only {} layers may go")
    _check_measured(SLEB, order[:drops], drops, len(order), request)
    return Choice.of_ranking(order[:drops], removal, scores, request)


def search(scores: Scores, request: Request) -> Choice:
    """Drop the set of K layers without which the loss on answers is lowest, as far as was searched.

    Raises:
        InputError: no sets of K layers were measured, or other layers were protected then.
    """
    drops = attainable(request, len(request.free), "only {} layers may go")
    smallest, criterion = scores.of_span(1, SEARCH), f"{SEARCH}/{drops}"
    losses = {i: loss for (name, i, _), loss in scores.values.items() if name == criterion}
    largest = int(max(smallest.values()))
    _check_measured(SEARCH, sorted(losses), drops, len(losses) or largest, request)
    return Choice.of_ranking(sorted(losses), losses, scores, request)


def _check_measured(
    method: str, drop: Sequence[int], drops: int, n_measured: int, request: Request
) -> None:
    if drops > len(drop):
        raise InputError(
            f"{method}: {drops} layers are to go, {n_measured} removals were measured; raise"
            " sensitivity.max_ratio and run `sensitivity` again"
        )
    if protected := sorted({*drop} - request.free):
        raise InputError(
            f"{method}: layers {protected} are protected, but were not when removals were measured;"
            " run `sensitivity` with the same select.protect, protect_first and protect_last"
        )


def taylor(scores: Scores, request: Request) -> Choice:
    """Drop the K layers of least importance, `sum |sum_batches W * dL/dW|` over their weights."""
    importance = {i: v for i, v in scores.of_span(1, TAYLOR).items() if i in request.free}
    order = sorted(importance, key=lambda i: (importance[i], i))
    return Choice.of_ranking(order, importance, scores, request)
