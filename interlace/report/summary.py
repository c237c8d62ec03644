"""The numbers of one run in one flat file, `metrics/summary.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interlace.errors import InputError
from interlace.evaluation.result import Evaluation
from interlace.evaluation.retention import (
    common_benchmarks,
    overall_score,
    relative_performance,
)
from interlace.plan import Plan
from interlace.safetensors_files import stored_tensors

Metrics = Mapping[str, Any]  # numbers, flat; those of `latency.measure` also say why one is not

MODELS = ("dense", "pruned", "tuned")
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


def count_parameters(folder: Path) -> int:
    """Count the weights of a checkpoint from its safetensors headers; no weight is read.

    Args:
        folder: holds one or more `*.safetensors` files. Tied weights are stored, and so counted,
            once.

    Raises:
        InputError: there is no such file, or one is damaged or cut short.
    """
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise InputError(f"{folder}: no *.safetensors file; a checkpoint folder is expected")
    return sum(tensor.count for shard in shards for tensor in stored_tensors(shard).values())


def summarise(
    evaluations: Mapping[str, Evaluation],
    ttft: Metrics,
    plan: Plan,
    *,
    parameters_before: int,
    parameters_after: int,
) -> dict[str, float | int]:
    """Gather one run's numbers, flat, with stable keys.

    Scores and retention are means over the benchmarks that all three models have a score on;
    retention is against the dense model. What was not measured is missing, never zero.

    Args:
        evaluations: by `dense`, `pruned` and `tuned`.
        ttft: what `latency.measure` returned.
        plan: which layers were dropped and tuned.
        parameters_before: of the dense checkpoint.
        parameters_after: of the pruned one.
    """
    summary: dict[str, float | int] = {}
    scores = {model: evaluations[model]["scores"] for model in MODELS}
    common = common_benchmarks(*scores.values())
    if common:
        for model in MODELS:
            mean = overall_score(scores[model], common)
            if mean is not None:
                summary[f"score_{model}"] = mean
    shared = {model: {name: scores[model][name] for name in common} for model in MODELS}
    kept = {model: relative_performance(shared[model], shared["dense"]) for model in MODELS[1:]}
    for model, relative in kept.items():
        if relative.percent is not None:
            summary[f"retention_{model}"] = relative.percent
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
    for model in MODELS:
        summary |= {f"{model}/{name}": score["score"] for name, score in scores[model].items()}
    for model, relative in kept.items():
        summary |= {f"retention_{model}/{name}": value for name, value in relative.ratios.items()}
    return summary


def left_out(evaluations: Mapping[str, Evaluation]) -> dict[str, str]:
    """Benchmarks that count in no mean, and why; to be named wherever means are shown."""
    reasons: dict[str, str] = {}
    dense = evaluations["dense"]["scores"]
    for model in MODELS:
        reasons |= evaluations[model]["skipped"]
        relative = relative_performance(evaluations[model]["scores"], dense)
        for name, why in relative.left_out.items():
            reasons.setdefault(name, f"{model}: {why}")
    return reasons


def benchmarks_of(summary: Metrics) -> list[str]:
    """The benchmarks a summary has any score for, in its order."""
    prefixes = tuple(f"{model}/" for model in MODELS)
    return list(dict.fromkeys(key.split("/", 1)[1] for key in summary if key.startswith(prefixes)))
