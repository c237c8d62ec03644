"""How much of a reference model's scores another model retains.

Relative performance is a mean of ratios, not a ratio of means: every benchmark weighs the same
however hard it is. A benchmark without a result on either side is left out of both.
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
        percent: 100 * mean over benchmarks of score / reference score; none without a benchmark.
        ratios: 100 * score / reference score by benchmark.
        skipped: benchmarks that count on neither side, and why.
    """

    percent: float | None
    ratios: dict[str, float]
    skipped: dict[str, str]


def relative_performance(scores: Scores, reference: Scores) -> RelativePerformance:
    """Relative performance as INTERLACE reports it.

    Args:
        scores: the `scores` of the model's evaluation.
        reference: those of the model it is measured against; say which wherever this is shown.
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
    """Benchmarks on which every one of the models has a result, in the first one's order."""
    if not models:
        return []
    return [name for name in models[0] if all(name in scores for scores in models)]


def overall_score(scores: Scores, benchmarks: Iterable[str] | None = None) -> float | None:
    """Mean score over benchmarks, 0 to 100; none when there is no benchmark.

    Args:
        scores: the `scores` of a model's evaluation.
        benchmarks: benchmarks to average over, e.g. those that all models have; none: all.
    """
    names = list(scores if benchmarks is None else benchmarks)
    return fmean(scores[name].score for name in names) if names else None


def overall_error(scores: Scores, benchmarks: Iterable[str] | None = None) -> float | None:
    """Standard error of `overall_score`; benchmarks are independent of each other.

    None where a benchmark has none.
    """
    names = list(scores if benchmarks is None else benchmarks)
    errors = [scores[name].standard_error for name in names]
    known = [error for error in errors if error is not None]
    return math.hypot(*known) / len(known) if known and len(known) == len(errors) else None


def category_scores(scores: Scores, benchmarks: Iterable[str] | None = None) -> dict[str, float]:
    """Mean score of each category, over its benchmarks."""
    members = categories(scores, scores if benchmarks is None else benchmarks)
    return {
        category: fmean(scores[name].score for name in names) for category, names in members.items()
    }


def categories(scores: Scores, benchmarks: Iterable[str]) -> dict[str, list[str]]:
    """The benchmarks of each category."""
    members: dict[str, list[str]] = {}
    for name in benchmarks:
        members.setdefault(scores[name].category, []).append(name)
    return members


def summary_lines(evaluation: Evaluation) -> list[str]:
    """An evaluation in lines for the terminal: the mean, what was skipped, and notes."""
    score = overall_score(evaluation.scores)
    mean = "no score" if score is None else f"{score:.1f} of 100"
    lines = [f"{evaluation.model}: {mean}"]
    lines += [f"skipped {name}: {why}" for name, why in evaluation.skipped.items()]
    return lines + [f"{name}: {note}" for name, note in evaluation.notes.items()]
