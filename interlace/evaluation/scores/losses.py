"""The loss on true answers, and how two models differ in it on the same questions. No torch here.

A loss per token is a ratio of two sums over questions, nats and tokens (`scores.rate`). A
difference is paired by question, so what makes a question hard for both models cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from interlace.errors import InputError
from interlace.evaluation.scores.answers import Answer
from interlace.evaluation.scores.result import Loss
from interlace.scores.rate import Rate, rate

Pair = tuple[Answer, Answer]  # of two models, to the same row


def loss_per_token(answer: Answer) -> float:
    """Return the loss of one answer that has one, nats a token."""
    return (answer.loss or 0.0) / (answer.n_tokens or 1)


def loss_of(answers: Iterable[Answer]) -> Loss | None:
    """Return the loss per token of some answers; None where none has a loss."""
    pairs = [(answer, answer) for answer in answers if answer.loss is not None]
    if not pairs:
        return None
    loss = _per_token(pairs, lambda first, _: first.loss or 0.0)
    return Loss(loss=loss.value, standard_error=loss.standard_error, tokens=loss.tokens)


def loss_rise(first: Sequence[Answer], second: Sequence[Answer]) -> Rate | None:
    """Return the rise of the loss from the first model to the second, nats a token.

    Args:
        first: answers of the first model.
        second: answers of the second model.

    Returns:
        The rise with its paired standard error; None where they share no row with a loss.

    Raises:
        InputError: a row has other numbers of tokens in both.
    """
    pairs = _pairs(first, second)
    return _per_token(pairs, lambda a, b: (b.loss or 0.0) - (a.loss or 0.0)) if pairs else None


def agreement(first: Sequence[Answer], second: Sequence[Answer]) -> Rate | None:
    """Return the share of answer tokens with the same first choice in both models, percent.

    Args:
        first: answers of the first model.
        second: answers of the second model.

    Returns:
        The share; None where they share no row with a loss.

    Raises:
        InputError: a row has other numbers of tokens in both.
    """
    pairs = _pairs(first, second)
    return _per_token(pairs, lambda a, b: 100.0 * _same(a, b)) if pairs else None


def _same(first: Answer, second: Answer) -> int:
    return sum(a == b for a, b in zip(first.choices or (), second.choices or (), strict=True))


def _pairs(first: Sequence[Answer], second: Sequence[Answer]) -> list[Pair]:
    """Return the answers of both models to the rows for which both have a loss."""
    second_by_row = {
        (answer.benchmark, answer.sample_id): answer for answer in second if answer.loss is not None
    }
    pairs = []
    for answer in first:
        counterpart = second_by_row.get((answer.benchmark, answer.sample_id))
        if answer.loss is None or counterpart is None:
            continue
        if answer.n_tokens != counterpart.n_tokens:
            raise InputError(
                f"{answer.benchmark}, {answer.sample_id}: its answer has {answer.n_tokens} tokens"
                f" for one model and {counterpart.n_tokens} for the other; compare models of one"
                " tokenizer"
            )
        pairs.append((answer, counterpart))
    return pairs


def _per_token(pairs: Sequence[Pair], quantity: Callable[[Answer, Answer], float]) -> Rate:
    """Sum a quantity and the tokens by question, and estimate the quantity per token."""
    sums: dict[tuple[str, str], float] = {}
    tokens: dict[tuple[str, str], int] = {}
    for first, second in pairs:
        question = first.benchmark, first.question_id
        sums[question] = sums.get(question, 0.0) + quantity(first, second)
        tokens[question] = tokens.get(question, 0) + (first.n_tokens or 0)
    return rate(list(sums.values()), list(tokens.values()))
