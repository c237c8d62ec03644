"""Time to first token and end to end of two models, side by side, and what their FLOPs promise.

Dense and tuned take turns in one process, so that what slows the machine down slows both, and the
speedup is the median of paired ratios. A ratio whose bootstrap interval is wider than
`max_interval` of it is not reported: its place holds nothing, and the reason stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from interlace.model.chat import Inputs, Row
from interlace.model.open import open_model, open_processor
from interlace.params.timing import Ttft
from interlace.speed.clock import DENSE, TUNED, Pairs, count_flops, first_token, time_pairs
from interlace.speed.flops import NAMES, Work, by_formula, ideals
from interlace.speed.memory import cache_bytes, request_peak, weight_bytes
from interlace.speed.requests import TimedRequest, drawn_requests, typical_requests

BOOTSTRAPS = 2000  # resamples behind an interval
PARTS = ("ttft", "vision", "prefill", "decode", "end_to_end")


def ratio_interval(
    dense: np.ndarray, tuned: np.ndarray, *, confidence: float, seed: int
) -> tuple[float, float, float]:
    """The median speedup and its percentile bootstrap interval.

    Requests are drawn anew, and pairs within each request: requests differ, repeats are noise.

    Args:
        dense: times, [requests, pairs].
        tuned: times of the same pairs, same shape.
        confidence: level of the interval, in (0, 1).
        seed: of the resampling.

    Returns:
        The median of `dense / tuned`, and the interval's ends.
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
    dense: np.ndarray, tuned: np.ndarray, part: str, params: Ttft, seed: int
) -> dict[str, float | str | None]:
    """The speedup of one part with its interval, or none and why where that is too wide.

    Args:
        dense: times, [requests, pairs].
        tuned: times of the same pairs, same shape.
        part: begins the keys.
        params: the interval's level, and how wide it may be.
        seed: of the bootstrap.
    """
    middle, low, high = ratio_interval(dense, tuned, confidence=params.confidence, seed=seed)
    found: dict[str, float | str | None] = {
        f"{part}_speedup": middle,
        f"{part}_speedup_low": low,
        f"{part}_speedup_high": high,
    }
    if high - low > params.max_interval * middle:
        found[f"{part}_speedup"] = None
        found[f"{part}_speedup_refused"] = (
            f"its {100 * params.confidence:g}% interval, {low:.2f} to {high:.2f}, is wider than"
            f" {100 * params.max_interval:g}% of it; time on an idle machine, or raise ttft.repeats"
        )
    return found


def _requests(
    processor: Any, rows: Sequence[Row], params: Ttft, seed: int
) -> Sequence[TimedRequest]:
    """The typical requests of the benchmarks that are named, or rows that are drawn."""
    if params.shapes:
        return typical_requests(processor, params.shapes)
    return drawn_requests(processor, rows, params.requests, seed)


def _on(inputs: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
    return {
        name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        for name, value in inputs.items()
    }


def _times(pairs: Pairs, part: str) -> list[np.ndarray] | None:
    """Times of one part, [R, P] for dense and for tuned; requests it never ran in are left out."""
    both = []
    for model in (DENSE, TUNED):
        rows = [[getattr(pair[model], part) for pair in request] for request in pairs]
        kept = [row for row in rows if all(value is not None for value in row)]
        if not kept:
            return None
        both.append(np.array(kept, dtype=np.float64))
    return both


def pair_metrics(
    pairs: Pairs, works: Sequence[tuple[Work, Work]], params: Ttft, seed: int
) -> dict[str, Any]:
    """Medians, speedups and ideals of some requests, by part."""
    metrics: dict[str, Any] = {}
    for part in PARTS:
        times = _times(pairs, part)
        if times is None or (part == "end_to_end" and params.new_tokens == 1):
            continue
        for name, values in zip(NAMES, times, strict=True):
            metrics[f"{part}_{name}_ms"] = float(np.median(values))
        if part != "vision":  # the same tower on both sides: its ratio says nothing
            metrics |= speedup(times[DENSE], times[TUNED], part, params, seed)
    metrics |= ideals(works)
    if "decode_ideal" in metrics:
        metrics["end_to_end_ideal"] = _end_to_end_ideal(metrics, params.new_tokens)
    return metrics


def _end_to_end_ideal(metrics: Mapping[str, Any], new_tokens: int) -> float:
    """The ideals of the first token and of the others, by the dense model's time for each."""
    first, others = metrics["ttft_dense_ms"], (new_tokens - 1) * metrics["decode_dense_ms"]
    shortest = first / metrics["ttft_ideal"] + others / metrics["decode_ideal"]
    return float((first + others) / shortest)


def _by_benchmark(
    requests: Sequence[TimedRequest],
    pairs: Pairs,
    works: Sequence[tuple[Work, Work]],
    params: Ttft,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Time to first token of each benchmark, and how long its prompts are."""
    found = {}
    for name in sorted({request.benchmark for request in requests}):
        mine = [place for place, request in enumerate(requests) if request.benchmark == name]
        whole = pair_metrics([pairs[i] for i in mine], [works[i] for i in mine], params, seed)
        found[name] = {key: value for key, value in whole.items() if key.startswith("ttft_")}
        found[name]["tokens"] = _median_tokens([requests[i] for i in mine])
    return found


def _median_tokens(requests: Sequence[TimedRequest]) -> float:
    return float(np.median([len(request.encoded["input_ids"]) for request in requests]))


def _memory(models: tuple[nn.Module, nn.Module], requests: Sequence[Inputs]) -> dict[str, int]:
    """Bytes of weights, of the longest request's cache, and of the most that is in use at once."""
    longest = max(requests, key=lambda inputs: inputs["input_ids"].shape[1])
    device = longest["input_ids"].device
    found = {}
    for model, name in zip(models, NAMES, strict=True):
        weights = weight_bytes(model)
        run = partial(first_token, model, longest)
        found[f"weights_{name}_bytes"] = weights
        found[f"cache_{name}_bytes"] = cache_bytes(run()[1])
        found[f"peak_{name}_bytes"] = weights + request_peak(run, device)
    return found


def compare_models(
    models: tuple[Any, Any],
    processor: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    params: Ttft,
    seed: int,
) -> dict[str, Any]:
    """Time two models in memory side by side; see `measure` for what comes back."""
    requests = _requests(processor, rows, params, seed)
    metrics, pairs, works = _one_size(models, requests, 1, params, seed)
    metrics["benchmarks"] = _by_benchmark(requests, pairs, works, params, seed)
    sizes = [size for size in dict.fromkeys(params.batch_sizes) if size > 1]
    if sizes:
        one = [_of_median_length(requests)]
        metrics["batches"] = {
            str(size): _one_size(models, one, size, params, seed)[0] for size in sizes
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
    return sorted(requests, key=lambda request: len(request.encoded["input_ids"]))[
        len(requests) // 2
    ]


def _one_size(
    models: tuple[Any, Any], requests: Sequence[TimedRequest], size: int, params: Ttft, seed: int
) -> tuple[dict[str, Any], Pairs, list[tuple[Work, Work]]]:
    """All that is measured with batches of one size: numbers, and what they are made from."""
    device, dtype = models[DENSE].device, models[DENSE].dtype
    inputs = [_on(request.batch(size), device, dtype) for request in requests]
    with torch.inference_mode():
        pairs = time_pairs(models, inputs, params, seed)
        works = [_works(models, each, params.new_tokens) for each in inputs]
        found = pair_metrics(pairs, works, params, seed) | by_formula(models, inputs)
        return found | _memory(models, inputs), pairs, works


def _works(models: tuple[Any, Any], inputs: Inputs, new_tokens: int) -> tuple[Work, Work]:
    return (
        count_flops(models[DENSE], inputs, new_tokens),
        count_flops(models[TUNED], inputs, new_tokens),
    )


def compare_checkpoints(
    dense_dir: Path | str,
    tuned_dir: Path | str,
    rows: Sequence[Mapping[str, Any]],
    *,
    params: Ttft,
    seed: int,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Measure how much sooner the tuned model's tokens come, and what it takes of the memory.

    Args:
        dense_dir: checkpoint of the dense model; its processor makes the inputs of both.
        tuned_dir: checkpoint of the model with fewer layers.
        rows: FineVision rows; `params.requests` of them are drawn, unless `params.shapes` names
            benchmarks.
        params: what is sent how often, and how sure a ratio must be.
        seed: of the draw, the order and the bootstrap.
        trust_remote_code: let the models' own Python code run.

    Returns:
        `*_ms` are medians over all pairs of batch 1; `*_speedup` medians of paired ratios, with
        `_low` and `_high`, null with a reason in `_refused` where the interval is too wide;
        `*_ideal` what `flops.ideals` says, `flops_*_by_formula` what `flops.by_formula` does.
        `vision_*` is there only where a vision tower was found and ran. `weights_*`, `cache_*` (of
        the longest prompt) and `peak_*` (weights, and the most that its first token adds) in bytes.
        `tokens` is the median prompt, `on_gpu` is 1 or 0, `threads` are torch's on the CPU.
        `benchmarks` has the same per benchmark or source, `batches` per further batch size, for the
        prompt of median length.

    Raises:
        InputError: there are no rows.
    """
    processor = open_processor(dense_dir, trust_remote_code=trust_remote_code)
    models = (
        open_model(dense_dir, dtype=params.dtype, trust_remote_code=trust_remote_code),
        open_model(tuned_dir, dtype=params.dtype, trust_remote_code=trust_remote_code),
    )
    return compare_models(models, processor, rows, params=params, seed=seed)


def speedup_line(measured: Mapping[str, Any]) -> str:
    """The speedup of the first token in one line, or why there is none."""
    ideal = f"ideal {measured['ttft_ideal']:.2f}x"
    if measured["ttft_speedup"] is None:
        return f"no ratio: {measured['ttft_speedup_refused']} ({ideal})"
    low, high = measured["ttft_speedup_low"], measured["ttft_speedup_high"]
    return f"{measured['ttft_speedup']:.2f}x ({low:.2f} to {high:.2f}), {ideal}"
