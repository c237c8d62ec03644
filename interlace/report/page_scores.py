"""The scores of a run on its page: by benchmark, by category, and their means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from interlace.report.card import Run
from interlace.report.page import escaped, table
from interlace.report.sections import device_name, sample_counts, spelled
from interlace.report.summary import MODELS, Metrics, benchmarks_of, references_in

NONE = "\u2013"
Key = tuple[str, str]  # what stands before and behind a model's name in a summary's key


def scores(run: Run) -> str:
    """The section: scores with their standard errors, what is retained, and what is left out."""
    summary, names = run.summary, benchmarks_of(run.summary)
    left = "".join(
        f"<li>{escaped(name)}: {escaped(why)}</li>\n" for name, why in run.left_out.items()
    )
    named = f"<p>Left out of the means:</p>\n<ul>\n{left}</ul>\n" if left else ""
    if not names:
        return f"<h2>Scores</h2>\n<p>Not measured.</p>\n{named}"
    references = references_in(run.evaluations)
    models, kept = [*MODELS, *references], retentions(references)
    rows = []
    for name in names:
        found = [run.evaluations[model]["scores"].get(name) for model in models]
        one, error = ("", f"/{name}"), ("error_", f"/{name}")
        rows.append([name, sample_counts(found), *_cells(summary, models, kept, one, error, one)])
    means = _cells(summary, models, kept, ("score_", ""), ("score_", "_error"), ("", ""))
    rows.append(["mean", "", *means])
    headings = ["samples", *map(_spelled, models), *kept.values()]
    measured = run.evaluations["dense"]
    caption = (
        "Scores, 0 to 100, ± one standard error, and what is retained (mean of ratios, with its"
        f" 95% interval); measured on {device_name(measured['device'])} in {measured['dtype']}"
    )
    text = table(["benchmark", *headings], rows, caption=caption)
    if rows := list(_categories(summary, models, kept)):
        text += table(["category", *headings], rows, caption="Means by category", kind="plain")
    return f"<h2>Scores</h2>\n{text}{named}"


def retentions(references: Sequence[str]) -> dict[str, str]:
    """Keys of what is retained, and how they are called: of dense, then of the reference."""
    found = {f"retention_{model}": f"{model} of dense" for model in MODELS[1:]}
    for name in references:
        for model in MODELS[1:]:
            found[f"retention_{model}_of_{name}"] = f"{model} of {spelled(name)}"
    return found


def _spelled(model: str) -> str:
    return model if model in MODELS else spelled(model)


def _categories(
    summary: Metrics, models: Sequence[str], kept: Mapping[str, str]
) -> Iterator[list[str]]:
    for key in summary:
        if key.startswith("category_samples/"):
            end = key.removeprefix("category_samples")
            score, error = ("category_", end), ("category_error_", end)
            yield [
                end[1:],
                f"{summary[key]:,}",
                *_cells(summary, models, kept, score, error, score),
            ]


def _cells(
    summary: Metrics,
    models: Sequence[str],
    kept: Mapping[str, str],
    score: Key,
    error: Key,
    share: Key,
) -> list[str]:
    """Scores of the models with their errors, and what is retained with its interval, as text."""

    def value(key: Key, name: str) -> float | None:
        return summary.get(name.join(key))

    shown = [_score(value(score, model), value(error, model)) for model in models]
    for name in kept:
        ends = [value((share[0], f"_{end}{share[1]}"), name) for end in ("low", "high")]
        shown.append(_share(value(share, name), ends))
    return shown


def _score(value: float | None, error: float | None) -> str:
    text = NONE if value is None else f"{value:.1f}"
    return text if error is None else f"{text} \u00b1 {error:.1f}"


def _share(value: float | None, ends: Sequence[float | None]) -> str:
    text = NONE if value is None else f"{value:.1f}%"
    low, high = ends
    return text if low is None or high is None else f"{text} [{low:.1f}, {high:.1f}]"
