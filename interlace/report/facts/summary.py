"""The numbers of one run in one flat file, `metrics/summary.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from interlace.errors import MissingInputError
from interlace.evaluation.scores.result import Evaluation
from interlace.evaluation.scores.retention import (
    RelativePerformance,
    Scores,
    categories,
    common_benchmarks,
    overall_error,
    overall_score,
    relative_performance,
)
from interlace.plan.record import Plan
from interlace.system.documents import read_record

Metrics = Mapping[str, Any]  # numbers, flat; those of `latency.measure` also say why one is not

MODELS = ("dense", "pruned", "tuned")
REFERENCES = ("dense_ft", "dense_sft")  # the dense model tuned as well; one of them, or none
FROM_TTFT = (
    "ttft_speedup",
    "ttft_speedup_low",
    "ttft_speedup_high",
    "ttft_ideal",
    "ttft_dense_ms",
    "ttft_tuned_ms",
    "prefill_speedup",
    "prefill_ideal",
)


def read_summary(path: Path) -> Metrics:
    """Read what `report` wrote.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    summary: Metrics = read_record(path, dict[str, int | float | None])
    sizes = [f"{size}_{when}" for size in ("layers", "parameters") for when in ("before", "after")]
    for key in (*sizes, "layers_tuned"):
        if summary.get(key) is None:
            raise MissingInputError(path, f"{key} is missing")
    return summary


def summarise(
    evaluations: Mapping[str, Evaluation],
    ttft: Metrics,
    plan: Plan,
    *,
    parameters_before: int,
    parameters_after: int,
) -> dict[str, float | int]:
    """Gather one run's numbers, flat, with stable keys.

    Scores and retention are means over the benchmarks that all models have a score on. Retention
    is against the dense model, and against the reference where there is one, which the key then
    names: `retention_tuned`, `retention_tuned_of_dense_ft`. What was not measured is missing,
    never zero.

    Args:
        evaluations: by `dense`, `pruned` and `tuned`, and by a name of `REFERENCES` or none.
        ttft: what `latency.measure` returned.
        plan: which layers were dropped and tuned.
        parameters_before: of the dense checkpoint.
        parameters_after: of the pruned one.
    """
    models = (*MODELS, *references_in(evaluations))
    scores = {model: evaluations[model].scores for model in models}
    common = common_benchmarks(*scores.values())
    shared = {model: {name: scores[model][name] for name in common} for model in models}
    retention = _retention(shared)
    summary = _means(shared) if common else {}
    summary |= {
        key: relative.percent for key, relative in retention.items() if relative.percent is not None
    }
    summary["benchmarks"] = len(common)
    summary |= {name: ttft[name] for name in FROM_TTFT if ttft.get(name) is not None}
    summary |= {
        "layers_before": plan.n_layers,
        "layers_after": len(plan.keep),
        "layers_tuned": len(plan.tune),
        "parameters_before": parameters_before,
        "parameters_after": parameters_after,
    }
    if plan.stability:
        summary["selection_same"] = 100 * plan.stability.same
    summary |= _by_category(shared)
    summary |= _by_benchmark(scores)
    for key, relative in retention.items():
        summary |= {f"{key}/{name}": value for name, value in relative.ratios.items()}
    return summary


def references_in(names: Iterable[str]) -> list[str]:
    """Return the reference among some models or keys `score_...`; at most one."""
    return [name for name in REFERENCES if {name, f"score_{name}"} & set(names)]


def _means(shared: Mapping[str, Scores]) -> dict[str, float | int]:
    """Return each model's mean score and its error, and the count of rows."""
    numbers: dict[str, float | int] = {}
    for model, by_benchmark in shared.items():
        numbers[f"score_{model}"] = overall_score(by_benchmark) or 0.0
        if (error := overall_error(by_benchmark)) is not None:
            numbers[f"score_{model}_error"] = error
    numbers["samples"] = sum(score.n for score in shared["dense"].values())
    return numbers


def _retention(shared: Mapping[str, Scores]) -> dict[str, RelativePerformance]:
    """Compare all models with the dense one, then the pruned and tuned with the reference."""
    pairs = {f"retention_{model}": (model, "dense") for model in shared if model != "dense"}
    for reference in references_in(shared):
        for model in MODELS[1:]:
            pairs[f"retention_{model}_of_{reference}"] = (model, reference)
    return {
        key: relative_performance(shared[model], shared[other])
        for key, (model, other) in pairs.items()
    }


def _by_benchmark(scores: Mapping[str, Scores]) -> dict[str, float | int]:
    """Return each model's scores and their errors, and the counts of rows."""
    numbers: dict[str, float | int] = {
        f"samples/{name}": score.n for name, score in scores["dense"].items()
    }
    for model, by_benchmark in scores.items():
        numbers |= {f"{model}/{name}": score.score for name, score in by_benchmark.items()}
        numbers |= {
            f"error_{model}/{name}": score.standard_error
            for name, score in by_benchmark.items()
            if score.standard_error is not None
        }
    return numbers


def _by_category(scores: Mapping[str, Scores]) -> dict[str, float | int]:
    """Return means of each category with errors and counts, where there are several categories."""
    numbers: dict[str, float | int] = {}
    members = categories(scores["dense"], scores["dense"])
    for category, names in members.items() if len(members) > 1 else ():
        numbers[f"category_samples/{category}"] = sum(scores["dense"][name].n for name in names)
        for model in scores:
            by_benchmark = {name: scores[model][name] for name in names}
            for reference in ("dense", *references_in(scores)):
                relative = relative_performance(by_benchmark, scores[reference]).percent
                if relative is None or model in ("dense", reference):
                    continue
                of = "" if reference == "dense" else f"_of_{reference}"
                numbers[f"category_retention_{model}{of}/{category}"] = relative
            numbers[f"category_{model}/{category}"] = overall_score(by_benchmark) or 0.0
            if (error := overall_error(by_benchmark)) is not None:
                numbers[f"category_error_{model}/{category}"] = error
    return numbers


def left_out(evaluations: Mapping[str, Evaluation]) -> dict[str, str]:
    """Return the benchmarks that count in no mean with the reasons; shown wherever means are."""
    reasons: dict[str, str] = {}
    dense = evaluations["dense"].scores
    for model in (*MODELS, *references_in(evaluations)):
        reasons |= evaluations[model].skipped
        relative = relative_performance(evaluations[model].scores, dense)
        for name, reason in relative.skipped.items():
            reasons.setdefault(name, f"{model}: {reason}")
    return reasons


def benchmarks_of(summary: Metrics) -> list[str]:
    """Return the benchmarks a summary has any score for, in its order."""
    prefixes = tuple(f"{model}/" for model in (*MODELS, *REFERENCES))
    return list(dict.fromkeys(key.split("/", 1)[1] for key in summary if key.startswith(prefixes)))
