"""The share of a reference model's scores that another model retains.

Relative performance is a mean of ratios, not a ratio of means: each benchmark weighs the same
however hard it is. A benchmark that only one of the models has is skipped for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from interlace.evaluation.scores.result import Evaluation, Score

Scores = Mapping[str, Score]


@dataclass(frozen=True)
class RelativePerformance:
    """Scores of one model relative to a reference.

    Attributes:
        percent: 100 * mean over benchmarks of score / reference score; None without a benchmark.
        ratios: 100 * score / reference score by benchmark.
        skipped: benchmark -> why it counts for neither model.
    """

    percent: float | None
    ratios: dict[str, float]
    skipped: dict[str, str]


def relative_performance(scores: Scores, reference: Scores) -> RelativePerformance:
    """Compute relative performance as INTERLACE reports it.

    Args:
        scores: of the model.
        reference: scores of the model it is compared with; name that model wherever this is shown.
    """
    ratios: dict[str, float] = {}
    skipped: dict[str, str] = {}
    for name in [*reference, *(name for name in scores if name not in reference)]:
        if name not in scores:
            skipped[name] = "no result for the model"
        elif name not in reference:
            skipped[name] = "no result for the reference"
        elif reference[name].score == 0:
            skipped[name] = "the reference scores 0"
        else:
            ratios[name] = 100 * scores[name].score / reference[name].score
    percent = fmean(ratios.values()) if ratios else None
    return RelativePerformance(percent, ratios, skipped)


def common_benchmarks(*models: Scores) -> list[str]:
    """List the benchmarks on which all models have a score, in the first model's order."""
    if not models:
        return []
    return [name for name in models[0] if all(name in scores for scores in models)]


def overall_score(scores: Scores, benchmarks: Iterable[str] | None = None) -> float | None:
    """Average scores over benchmarks, 0 to 100; None without a benchmark.

    Args:
        scores: of a model.
        benchmarks: to average over, e.g. those that all models have; None: all.
    """
    names = list(scores if benchmarks is None else benchmarks)
    return fmean(scores[name].score for name in names) if names else None


def overall_error(scores: Scores, benchmarks: Iterable[str] | None = None) -> float | None:
    """Return the standard error of `overall_score`; benchmarks are independent.

    None where a benchmark has no standard error.
    """
    names = list(scores if benchmarks is None else benchmarks)
    errors = [scores[name].standard_error for name in names]
    numbers = [error for error in errors if error is not None]
    complete = bool(numbers) and len(numbers) == len(errors)
    return math.hypot(*numbers) / len(numbers) if complete else None


def category_scores(scores: Scores, benchmarks: Iterable[str] | None = None) -> dict[str, float]:
    """Average scores over the benchmarks of each category."""
    members = categories(scores, scores if benchmarks is None else benchmarks)
    return {
        category: fmean(scores[name].score for name in names) for category, names in members.items()
    }


def categories(scores: Scores, benchmarks: Iterable[str]) -> dict[str, list[str]]:
    """Group benchmarks by category."""
    members: dict[str, list[str]] = {}
    for name in benchmarks:
        members.setdefault(scores[name].category, []).append(name)
    return members


def summary_lines(evaluation: Evaluation) -> list[str]:
    """Describe an evaluation for the terminal: mean, skipped benchmarks, notes."""
    score = overall_score(evaluation.scores)
    mean = "no score" if score is None else f"{score:.1f} of 100"
    lines = [f"{evaluation.model}: {mean}"]
    lines += [f"skipped {name}: {reason}" for name, reason in evaluation.skipped.items()]
    return lines + [f"{name}: {note}" for name, note in evaluation.notes.items()]
