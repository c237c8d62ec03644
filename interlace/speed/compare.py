"""Compare two models' time to first token and end to end, and the speedup their FLOPs promise.

Dense and tuned take turns in one process, so that a slow machine slows both, and the speedup is the
median of paired ratios. A ratio whose bootstrap interval is wider than `max_interval` of it is not
reported: it is `None`, and a second key gives the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.model.chat import Inputs, Row
from interlace.params.timing import Ttft
from interlace.speed.clock import DENSE, TUNED, Pairs, count_flops, first_token, time_pairs
from interlace.speed.flops import NAMES, Work, ideals
from interlace.speed.memory import cache_bytes, request_peak, weight_bytes
from interlace.speed.requests import TimedRequest, drawn_requests, typical_requests

BOOTSTRAPS = 2000  # resamples behind an interval
PHASES = ("ttft", "vision", "prefill", "decode", "end_to_end")


def ratio_interval(
    dense: np.ndarray, tuned: np.ndarray, *, confidence: float, seed: int
) -> tuple[float, float, float]:
    """Compute the median speedup and its percentile bootstrap interval.

    Each resample draws requests, and pairs within each request: requests differ, repeats are noise.

    Args:
        dense: times, [requests, pairs].
        tuned: times of the same pairs, same shape.
        confidence: level of the interval, in (0, 1).
        seed: of the resampling.

    Returns:
        The median of `dense / tuned`, and the ends of the interval.
    """
    ratios = dense / tuned  # [R, P]
    requests, pairs = ratios.shape
    rng = np.random.default_rng(seed)
    medians = np.empty(BOOTSTRAPS)
    for draw in range(BOOTSTRAPS):
        request = rng.integers(requests, size=(requests, 1))
        pair = rng.integers(pairs, size=(requests, pairs))
        medians[draw] = np.median(ratios[request, pair])
    tail = (1 - confidence) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return float(np.median(ratios)), float(low), float(high)


def speedup(
    dense: np.ndarray, tuned: np.ndarray, phase: str, params: Ttft, seed: int
) -> dict[str, float | str | None]:
    """Compute the speedup of one phase with its interval; `None` and a reason if that is too wide.

    Args:
        dense: times, [requests, pairs].
        tuned: times of the same pairs, same shape.
        phase: begins the keys.
        params: the interval's level, and its largest width.
        seed: of the bootstrap.
    """
    middle, low, high = ratio_interval(dense, tuned, confidence=params.confidence, seed=seed)
    metrics: dict[str, float | str | None] = {
        f"{phase}_speedup": middle,
        f"{phase}_speedup_low": low,
        f"{phase}_speedup_high": high,
    }
    if high - low > params.max_interval * middle:
        metrics[f"{phase}_speedup"] = None
        metrics[f"{phase}_speedup_refused"] = (
            f"its {100 * params.confidence:g}% interval, {low:.2f} to {high:.2f}, is wider than"
            f" {100 * params.max_interval:g}% of it; time on an idle machine, or raise ttft.repeats"
        )
    return metrics


def _requests(
    processor: Any, rows: Sequence[Row], params: Ttft, seed: int
) -> Sequence[TimedRequest]:
    """Make the typical requests of `ttft.shapes`, or draw rows if it is empty."""
    if params.shapes:
        return typical_requests(processor, params.shapes)
    return drawn_requests(processor, rows, params.requests, seed)


def _on(inputs: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
    return {
        name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        for name, value in inputs.items()
    }


def _times(pairs: Pairs, phase: str) -> list[np.ndarray] | None:
    """Return times of one phase, [R, P] for dense and for tuned; R counts requests that ran it."""
    times_by_model = []
    for model in (DENSE, TUNED):
        rows = [[getattr(pair[model], phase) for pair in request] for request in pairs]
        timed_rows = [row for row in rows if all(value is not None for value in row)]
        if not timed_rows:
            return None
        times_by_model.append(np.array(timed_rows, dtype=np.float64))
    return times_by_model


def pair_metrics(
    pairs: Pairs, works: Sequence[tuple[Work, Work]], params: Ttft, seed: int
) -> dict[str, Any]:
    """Summarise some requests by phase: median times, speedups and ideals."""
    metrics: dict[str, Any] = {}
    for phase in PHASES:
        times = _times(pairs, phase)
        if times is None or (phase == "end_to_end" and params.new_tokens == 1):
            continue
        for name, values in zip(NAMES, times, strict=True):
            metrics[f"{phase}_{name}_ms"] = float(np.median(values))
        if phase != "vision":  # both models have the same tower: its ratio says nothing
            metrics |= speedup(times[DENSE], times[TUNED], phase, params, seed)
    metrics |= ideals(works)
    if "decode_ideal" in metrics:
        metrics["end_to_end_ideal"] = _end_to_end_ideal(metrics, params.new_tokens)
    return metrics


def _end_to_end_ideal(metrics: Mapping[str, Any], new_tokens: int) -> float:
    """Weigh the ideals of the first token and of the others by the dense model's times."""
    first, rest = metrics["ttft_dense_ms"], (new_tokens - 1) * metrics["decode_dense_ms"]
    shortest = first / metrics["ttft_ideal"] + rest / metrics["decode_ideal"]
    return float((first + rest) / shortest)


def _by_benchmark(
    requests: Sequence[TimedRequest],
    pairs: Pairs,
    works: Sequence[tuple[Work, Work]],
    params: Ttft,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Summarise each benchmark: time to first token, and the length of its prompts."""
    metrics = {}
    for name in sorted({request.benchmark for request in requests}):
        indices = [i for i, request in enumerate(requests) if request.benchmark == name]
        summary = pair_metrics(
            [pairs[i] for i in indices], [works[i] for i in indices], params, seed
        )
        metrics[name] = {key: value for key, value in summary.items() if key.startswith("ttft_")}
        metrics[name]["tokens"] = _median_tokens([requests[i] for i in indices])
    return metrics


def _median_tokens(requests: Sequence[TimedRequest]) -> float:
    return float(np.median([request.tokens for request in requests]))


def _memory(models: tuple[nn.Module, nn.Module], requests: Sequence[Inputs]) -> dict[str, int]:
    """Measure bytes of weights, of the longest request's cache, and on CUDA of its peak."""
    longest = max(requests, key=lambda inputs: inputs["input_ids"].shape[1])
    device = longest["input_ids"].device
    metrics = {}
    for model, name in zip(models, NAMES, strict=True):
        weights = weight_bytes(model)
        run = partial(first_token, model, longest)
        metrics[f"weights_{name}_bytes"] = weights
        metrics[f"cache_{name}_bytes"] = cache_bytes(run()[1])
        if device.type == "cuda":
            metrics[f"peak_{name}_bytes"] = weights + request_peak(run, device)
    return metrics


def compare_models(
    models: tuple[Any, Any],
    processor: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    params: Ttft,
    seed: int,
) -> dict[str, Any]:
    """Time two models in memory side by side; returns what `compare_checkpoints` does."""
    requests = _requests(processor, rows, params, seed)
    metrics, pairs, works = _compare_batches(models, requests, 1, params, seed)
    metrics["benchmarks"] = _by_benchmark(requests, pairs, works, params, seed)
    sizes = [size for size in dict.fromkeys(params.batch_sizes) if size > 1]
    if sizes:
        median = [_of_median_length(requests)]
        metrics["batches"] = {
            str(size): _compare_batches(models, median, size, params, seed)[0] for size in sizes
        }
    return metrics | {
        "pairs": len(requests) * params.repeats,
        "requests": len(requests),
        "tokens": _median_tokens(requests),
        "new_tokens": params.new_tokens,
        "on_gpu": int(models[DENSE].device.type != "cpu"),
        "threads": torch.get_num_threads(),
    }


def _of_median_length(requests: Sequence[TimedRequest]) -> TimedRequest:
    return sorted(requests, key=lambda request: request.tokens)[len(requests) // 2]


def _compare_batches(
    models: tuple[Any, Any], requests: Sequence[TimedRequest], size: int, params: Ttft, seed: int
) -> tuple[dict[str, Any], Pairs, list[tuple[Work, Work]]]:
    """Measure batches of one size; returns the metrics, and the times and FLOPs behind them."""
    device, dtype = models[DENSE].device, models[DENSE].dtype
    batches = [_on(request.batch(size), device, dtype) for request in requests]
    with torch.inference_mode():
        pairs = time_pairs(models, batches, params, seed)
        works = [_works(models, batch, params.new_tokens) for batch in batches]
        metrics = pair_metrics(pairs, works, params, seed)
        return metrics | _memory(models, batches), pairs, works


def _works(models: tuple[Any, Any], inputs: Inputs, new_tokens: int) -> tuple[Work, Work]:
    return (
        count_flops(models[DENSE], inputs, new_tokens),
        count_flops(models[TUNED], inputs, new_tokens),
    )


def compare_checkpoints(
    dense: Checkpoint,
    tuned: Checkpoint,
    rows: Sequence[Mapping[str, Any]],
    *,
    params: Ttft,
    seed: int,
    dtype: str = "auto",
) -> dict[str, Any]:
    """Measure how much sooner the tuned model's tokens come, and how much memory it needs.

    Args:
        dense: the dense model; its processor makes the inputs of both.
        tuned: the model with fewer layers.
        rows: FineVision rows; `params.requests` of them are drawn, unless `params.shapes` names
            benchmarks.
        params: the requests, their repeats, and the largest interval of a ratio.
        seed: of the draw, the order and the bootstrap.
        dtype: type to compute in; auto: bfloat16 on a GPU, float32 on a CPU.

    Returns:
        `*_ms` are medians over all pairs of batch 1; `*_speedup` medians of paired ratios, with
        `_low` and `_high`, `None` with a reason in `_refused` if the interval is too wide;
        `*_ideal` and `flops_*` as in `flops.ideals`. `vision_*` is missing if no vision tower ran.
        `weights_*`, `cache_*` (of the longest prompt) and, on CUDA, `peak_*` (weights, and the most
        that the prompt adds up to its first token) are in bytes. `tokens` is the median prompt,
        `on_gpu` is 1 or 0, `threads` are torch's on the CPU. `benchmarks` has the same per
        benchmark or source, `batches` per further batch size, for the prompt of median length.

    Raises:
        InputError: there are no rows.
    """
    processor = dense.open_processor()
    options = {"dtype": dtype, "attn_implementation": params.attn_implementation}
    models = (dense.open_model(**options), tuned.open_model(**options))
    return compare_models(models, processor, rows, params=params, seed=seed)


def speedup_line(metrics: Mapping[str, Any]) -> str:
    """Say the speedup of the first token in one line, or the reason for its absence."""
    ideal = f"ideal {metrics['ttft_ideal']:.2f}x"
    if metrics["ttft_speedup"] is None:
        return f"no ratio: {metrics['ttft_speedup_refused']} ({ideal})"
    low, high = metrics["ttft_speedup_low"], metrics["ttft_speedup_high"]
    return f"{metrics['ttft_speedup']:.2f}x ({low:.2f} to {high:.2f}), {ideal}"
