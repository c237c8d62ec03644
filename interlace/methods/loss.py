"""Choices by the loss on answers: SLEB (arXiv 2402.09025) and first-order Taylor importance.

Both read the measurements of the `sensitivity` stage.
"""

from __future__ import annotations

from interlace.errors import InputError
from interlace.methods.choice import Choice, Request, attainable
from interlace.scores.table import SLEB, TAYLOR, Scores


def sleb(scores: Scores, request: Request) -> Choice:
    """Drop the first K layers in the order in which their removal hurt the pruned model least.

    Removals are nested: the order measured for the largest ratio serves every smaller one.

    Raises:
        InputError: fewer removals were measured, or other layers were protected then.
    """
    removal = scores.of_span(1, SLEB)
    order = sorted(removal, key=lambda i: removal[i])
    drops = attainable(request, len(request.free), "only {} layers may go")
    if drops > len(order):
        raise InputError(
            f"sleb: {drops} layers are to go, {len(order)} removals were measured; raise"
            " sensitivity.max_ratio and run `sensitivity` again"
        )
    if protected := sorted(set(order[:drops]) - request.free):
        raise InputError(
            f"sleb: layers {protected} are protected, but were not when removals were measured; run"
            " `sensitivity` with the same select.protect_first and select.protect_last"
        )
    return Choice.of_ranking(order[:drops], removal, scores, request)


def taylor(scores: Scores, request: Request) -> Choice:
    """Drop the K layers of least importance, `sum |sum_batches W * dL/dW|` over their weights."""
    importance = {i: v for i, v in scores.of_span(1, TAYLOR).items() if i in request.free}
    order = sorted(importance, key=lambda i: (importance[i], i))
    return Choice.of_ranking(order, importance, scores, request)
