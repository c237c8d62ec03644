"""The loss on held-out answers, its rise over the dense model's, and agreement with its choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interlace.evaluation.scores.answers import Answer
from interlace.evaluation.scores.losses import agreement, loss_of, loss_rise
from interlace.report.facts.summary import MODELS, Metrics
from interlace.report.facts.table import Table
from interlace.report.facts.wording import NONE
from interlace.scores.rate import Rate

DENSE = "dense"
Answers = Mapping[str, Sequence[Answer]]  # by model


def loss_numbers(answers: Answers) -> dict[str, float]:
    """Return numbers of the summary: losses, and what is paired with the dense model.

    Args:
        answers: by model, the dense one among them; none where there is nothing to compare.

    Returns:
        `loss_MODEL`, `loss_rise_MODEL` in nats per answer token, `agreement_MODEL` in percent, each
        with its `_error`, and `loss_tokens`; empty where no row has a loss.
    """
    numbers: dict[str, float] = {}
    for model, rows in answers.items():
        if loss := loss_of(rows):
            numbers |= _with_error(f"loss_{model}", loss.loss, loss.standard_error)
            numbers["loss_tokens"] = loss.tokens
        if model == DENSE:
            continue
        for name, compared in (("loss_rise", loss_rise), ("agreement", agreement)):
            if rate := compared(answers[DENSE], rows):
                numbers |= _with_error(f"{name}_{model}", rate.value, rate.standard_error)
    return numbers


def _with_error(key: str, value: float, error: float | None) -> dict[str, float]:
    return {key: value} | ({} if error is None else {f"{key}_error": error})


def rises(summary: Metrics) -> dict[str, tuple[float, float]]:
    """Return the rises of the loss of `pruned` and `tuned`, with standard errors; empty for none.

    Args:
        summary: of a run.
    """
    return {
        model: (summary[f"loss_rise_{model}"], summary.get(f"loss_rise_{model}_error") or 0.0)
        for model in MODELS[1:]
        if f"loss_rise_{model}" in summary
    }


def rise_text(summary: Metrics, model: str) -> str:
    """Return the rise of a model's loss with its error, by keys of the summary: +0.023 ± 0.004."""
    return _rise(summary[f"loss_rise_{model}"], summary.get(f"loss_rise_{model}_error"))


def _rise(value: float, error: float | None) -> str:
    return f"{value:+z.3f}" + ("" if error is None else f" \u00b1 {error:.3f}")


def loss_table(answers: Answers) -> Table:
    """Return the losses by source and over all; without rows where no row has a loss."""
    compared_models = [model for model in answers if model != DENSE]
    headings = ["source", "tokens", DENSE]
    headings += [
        f"{model}, {measure}" for measure in ("rise", "agreement") for model in compared_models
    ]
    rows_with_loss = {
        model: [answer for answer in rows if answer.loss is not None]
        for model, rows in answers.items()
    }
    sources = list(dict.fromkeys(answer.benchmark for answer in rows_with_loss.get(DENSE, ())))
    rows = [
        _cells(
            source,
            {
                model: [answer for answer in rows if answer.benchmark == source]
                for model, rows in rows_with_loss.items()
            },
        )
        for source in sources
    ]
    if rows:
        rows.append(_cells("all", rows_with_loss))
    return Table(
        headings,
        rows,
        "Loss on the true answers, nats per token, \u00b1 one standard error; rise: over the dense"
        " model's, paired; agreement: share of tokens for which the model's first choice is the"
        " dense model's",
    )


def _cells(name: str, answers: Answers) -> list[str]:
    dense = loss_of(answers[DENSE])
    cells = [name, NONE, NONE]
    if dense:
        error = "" if dense.standard_error is None else f" \u00b1 {dense.standard_error:.3f}"
        cells = [name, f"{dense.tokens:,}", f"{dense.loss:.3f}{error}"]
    rows_of_others = [rows for model, rows in answers.items() if model != DENSE]
    rises = [loss_rise(answers[DENSE], rows) for rows in rows_of_others]
    shares = [agreement(answers[DENSE], rows) for rows in rows_of_others]
    return [*cells, *map(_rise_cell, rises), *map(_share_cell, shares)]


def _rise_cell(rise: Rate | None) -> str:
    return _rise(rise.value, rise.standard_error) if rise else NONE


def _share_cell(share: Rate | None) -> str:
    return f"{share.value:.1f}%" if share else NONE
