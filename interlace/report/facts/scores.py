"""The table of scores and retention that the page and the cards show."""

from __future__ import annotations

from collections.abc import Sequence

from interlace.report.facts.run import Run
from interlace.report.facts.summary import MODELS, Metrics, benchmarks_of
from interlace.report.facts.wording import NONE, sample_counts, spelled


def retentions(references: Sequence[str], models: Sequence[str] = MODELS[1:]) -> dict[str, str]:
    """Return keys of retention with their headings: of the dense model, then of each reference."""
    headings = {f"retention_{model}": f"{model} of dense" for model in models}
    for name in references:
        for model in models:
            headings[f"retention_{model}_of_{name}"] = f"{model} of {spelled(name)}"
    return headings


def score_rows(
    run: Run, models: Sequence[str], shares: Sequence[str]
) -> tuple[list[list[str]], list[str]]:
    """Return a row per benchmark and the row of means: samples, scores, retention.

    Args:
        run: what was measured.
        models: whose scores.
        shares: keys of retention.
    """
    rows = []
    for name in benchmarks_of(run.summary):
        scores = [run.evaluations[model].scores.get(name) for model in models]
        cells = _cells(
            run.summary,
            [(f"{model}/{name}", f"error_{model}/{name}") for model in models],
            [(f"{share}/{name}", "", "") for share in shares],
        )
        rows.append([name, sample_counts(scores), *cells])
    means = _cells(
        run.summary,
        [(f"score_{model}", f"score_{model}_error") for model in models],
        [(share, f"{share}_low", f"{share}_high") for share in shares],
    )
    return rows, ["mean", "", *means]


def category_rows(
    summary: Metrics, models: Sequence[str], shares: Sequence[str]
) -> list[list[str]]:
    """Return a row per category; none where there is only one category."""
    rows = []
    for key in summary:
        if key.startswith("category_samples/"):
            name = key.split("/", 1)[1]
            scores = [
                (f"category_{model}/{name}", f"category_error_{model}/{name}") for model in models
            ]
            retention = [(f"category_{share}/{name}", "", "") for share in shares]
            rows.append([name, f"{summary[key]:,}", *_cells(summary, scores, retention)])
    return rows


def _cells(
    summary: Metrics, scores: Sequence[tuple[str, str]], shares: Sequence[tuple[str, str, str]]
) -> list[str]:
    """Return scores with their errors and retention with its interval, by keys of the summary."""
    cells = []
    for value, error in scores:
        text = NONE if value not in summary else f"{summary[value]:.1f}"
        cells.append(f"{text} \u00b1 {summary[error]:.1f}" if error in summary else text)
    for value, low, high in shares:
        text = share_text(summary.get(value))
        bounded = low in summary and high in summary
        cells.append(f"{text} [{summary[low]:.1f}, {summary[high]:.1f}]" if bounded else text)
    return cells


def share_text(percent: float | None) -> str:
    """Return a share in percent: 95.0%."""
    return NONE if percent is None else f"{percent:.1f}%"
