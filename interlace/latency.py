"""Time to first token of two checkpoints, side by side, and the speedup their FLOPs promise.

One request is one prompt, batch 1, its inputs already on the device. The clock runs from the call
to the first token: vision tower, prefill, one greedy sample. Dense and tuned take turns in one
process, so that what slows the machine down slows both, and the speedup is the median of paired
ratios.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from interlace.chat import Inputs, Row, collate, encode_prompt, open_processor
from interlace.errors import InputError
from interlace.params import Ttft
from interlace.sources import open_model

Spans = dict[str, list[list[Any]]]  # [start, end] readings of each run of a part
BOOTSTRAPS = 2000  # resamples behind an interval
DENSE, TUNED = 0, 1
NAMES = ("dense", "tuned")
VISION_NAMES = ("visual", "vision_tower", "vision_model", "vision_encoder", "image_tower")


@dataclass
class Timing:
    """One request, one model. `vision` is missing where no vision tower ran.

    Attributes:
        ttft: from call to first token, ms.
        decode: the second token, ms.
        prefill: within `ttft`, the decoder's layers and final norm, ms.
        vision: within `ttft`, the vision tower and what it holds (Qwen's merger included), ms.
    """

    ttft: float
    decode: float
    prefill: float | None
    vision: float | None


@dataclass
class Work:
    """FLOPs of one request by torch's counter, whole and in the decoder alone."""

    total: int
    prefill: int


def vision_tower(model: nn.Module) -> nn.Module | None:
    """The module that turns images into features; missing where it cannot be told for sure."""
    get_encoder = getattr(model, "get_encoder", None)
    found: Any = None
    if get_encoder is not None:
        try:
            found = get_encoder(modality="image")
        except (TypeError, ValueError, AttributeError):  # a model's own code may know no modality
            found = None
    if found is None or any(found is other for other in (model, getattr(model, "model", None))):
        modules = model.named_modules()
        found = next((m for name, m in modules if name.split(".")[-1] in VISION_NAMES), None)
    return found if isinstance(found, nn.Module) else None


@contextmanager
def marked(model: nn.Module, read: Callable[[], Any]) -> Iterator[Spans]:
    """Read a meter whenever the vision tower or the decoder starts and ends."""
    spans: Spans = {"vision": [], "prefill": []}
    parts = {"vision": vision_tower(model), "prefill": model.get_decoder()}  # type: ignore[operator]
    handles = []
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            mine = spans[name]
            start = partial(lambda mine, *_: mine.append([read()]), mine)
            end = partial(lambda mine, *_: mine[-1].append(read()), mine)
            handles.append(part.register_forward_pre_hook(start))
            handles.append(part.register_forward_hook(end))
    try:
        yield spans
    finally:
        for handle in handles:
            handle.remove()


def _total(spans: list[list[Any]], between: Callable[[Any, Any], float]) -> float | None:
    return sum(between(start, end) for start, end in spans) if spans else None


def first_token(model: nn.Module, inputs: Inputs) -> tuple[int, Any]:
    """Vision tower, prefill and one greedy sample.

    Args:
        model: a `ForConditionalGeneration`.
        inputs: of one prompt, [1, T] per token, on the model's device.

    Returns:
        The token, and the cache of the T prompt tokens.
    """
    output = model(**inputs, use_cache=True, logits_to_keep=1)
    return int(output.logits[0, -1].argmax().item()), output.past_key_values


def _next_token(model: nn.Module, inputs: Inputs, token: int, cache: Any) -> int:
    ids = inputs["input_ids"].new_tensor([[token]])  # [1, 1]
    # No mask: one prompt has no padding, and Qwen would place all T + 1 tokens of a mask anew.
    output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return int(output.logits[0, -1].argmax().item())


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _meter(device: torch.device) -> tuple[Callable[[], Any], Callable[[Any, Any], float]]:
    """A reading that does not stall the device, and the ms between two of them."""
    if device.type != "cuda":
        return time.perf_counter, lambda start, end: 1000 * (end - start)

    def read() -> Any:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    return read, lambda start, end: float(start.elapsed_time(end))


def timed(model: nn.Module, inputs: Inputs) -> Timing:
    """Time one request once, then the token that follows."""
    device = inputs["input_ids"].device
    read, between = _meter(device)
    with marked(model, read) as spans:
        _synchronise(device)
        start = time.perf_counter()
        token, cache = first_token(model, inputs)
        _synchronise(device)
        end = time.perf_counter()
    _next_token(model, inputs, token, cache)
    _synchronise(device)
    return Timing(
        ttft=1000 * (end - start),
        decode=1000 * (time.perf_counter() - end),
        prefill=_total(spans["prefill"], between),
        vision=_total(spans["vision"], between),
    )


def counted(model: nn.Module, inputs: Inputs) -> Work:
    """Count the FLOPs up to the first token (matrix products and attention, causal or not)."""
    counter = FlopCounterMode(display=False)
    with counter, marked(model, counter.get_total_flops) as spans:
        first_token(model, inputs)
    prefill = _total(spans["prefill"], lambda start, end: end - start)
    return Work(total=counter.get_total_flops(), prefill=int(prefill or 0))


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


def _requests(processor: Any, rows: Sequence[Row], params: Ttft, seed: int) -> list[Inputs]:
    """Draw the rows to send, and make their inputs; batches of one."""
    if not rows:
        raise InputError("no rows to time: the calibration set is empty")
    count = min(params.requests, len(rows))
    drawn = np.random.default_rng(seed).choice(len(rows), size=count, replace=False)
    requests = []
    for index in sorted(drawn.tolist()):
        inputs = collate([encode_prompt(processor, rows[index])], pad_token_id=0)  # one row: no pad
        inputs.pop("labels", None)
        requests.append(inputs)
    return requests


def _on(inputs: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
    return {
        name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        for name, value in inputs.items()
    }


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of what is timed."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _time_pairs(
    models: tuple[nn.Module, nn.Module], requests: list[Inputs], params: Ttft, seed: int
) -> list[list[tuple[Timing, Timing]]]:
    """Time every request `repeats` times on both models, [R][P]; who goes first alternates."""
    rng = np.random.default_rng(seed)
    pairs: list[list[tuple[Timing, Timing]]] = [[] for _ in requests]
    leads = rng.integers(2, size=len(requests))
    total = len(requests) * (params.warmup + params.repeats)
    with tqdm(total=total, desc="time to first token", unit="pair") as bar, _no_collection():
        for number in range(-params.warmup, params.repeats):
            for request in rng.permutation(len(requests)):
                order = (DENSE, TUNED) if (leads[request] + number) % 2 else (TUNED, DENSE)
                took = {model: timed(models[model], requests[request]) for model in order}
                if number >= 0:  # below: warm-up
                    pairs[request].append((took[DENSE], took[TUNED]))
                bar.update()
    return pairs


def _times(pairs: list[list[tuple[Timing, Timing]]], part: str) -> list[np.ndarray] | None:
    """Times of one part, [R, P] for dense and for tuned; requests it never ran in are left out."""
    both = []
    for model in (DENSE, TUNED):
        rows = [[getattr(pair[model], part) for pair in request] for request in pairs]
        kept = [row for row in rows if all(value is not None for value in row)]
        if not kept:
            return None
        both.append(np.array(kept, dtype=np.float64))
    return both


def _summary(
    pairs: list[list[tuple[Timing, Timing]]], params: Ttft, seed: int
) -> dict[str, float | int]:
    metrics: dict[str, float | int] = {}
    for part in ("ttft", "vision", "prefill", "decode"):
        times = _times(pairs, part)
        if times is None:
            continue
        for name, values in zip(NAMES, times, strict=True):
            metrics[f"{part}_{name}_ms"] = float(np.median(values))
        if part == "vision":  # the same tower on both sides: its ratio says nothing
            continue
        middle, low, high = ratio_interval(*times, confidence=params.confidence, seed=seed)
        metrics[f"{part}_speedup"] = middle
        metrics[f"{part}_speedup_low"] = low
        metrics[f"{part}_speedup_high"] = high
    return metrics


def _ideal(works: Sequence[tuple[Work, Work]]) -> dict[str, float | int]:
    """FLOPs of the median request, and the median ratio per request."""
    metrics: dict[str, float | int] = {}
    for model, name in enumerate(NAMES):
        metrics[f"flops_{name}"] = int(np.median([work[model].total for work in works]))
    ratios = [dense.total / tuned.total for dense, tuned in works]
    metrics["ttft_ideal"] = float(np.median(ratios))
    if all(tuned.prefill for _, tuned in works):
        ratios = [dense.prefill / tuned.prefill for dense, tuned in works]
        metrics["prefill_ideal"] = float(np.median(ratios))
    return metrics


def compare(
    models: tuple[Any, Any],
    processor: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    params: Ttft,
    seed: int,
) -> dict[str, float | int]:
    """Time two models in memory side by side; see `measure` for what comes back."""
    device, dtype = models[DENSE].device, models[DENSE].dtype
    requests = [_on(inputs, device, dtype) for inputs in _requests(processor, rows, params, seed)]
    with torch.inference_mode():
        pairs = _time_pairs(models, requests, params, seed)
        works = [(counted(models[DENSE], each), counted(models[TUNED], each)) for each in requests]
    return {
        **_summary(pairs, params, seed),
        **_ideal(works),
        "pairs": sum(len(request) for request in pairs),
        "requests": len(requests),
        "tokens": float(np.median([each["input_ids"].shape[1] for each in requests])),
        "on_gpu": int(device.type == "cuda"),
        "threads": torch.get_num_threads(),
    }


def measure(
    dense_dir: Path | str,
    tuned_dir: Path | str,
    rows: Sequence[Mapping[str, Any]],
    *,
    params: Ttft,
    seed: int,
    trust_remote_code: bool = False,
) -> dict[str, float | int]:
    """Measure how much sooner the tuned model's first token comes.

    Args:
        dense_dir: checkpoint of the dense model; its processor makes the inputs of both.
        tuned_dir: checkpoint of the model with fewer layers.
        rows: FineVision rows; `params.requests` of them are drawn.
        params: how many requests, pairs and warm-ups, and the interval's level.
        seed: of the draw, the order and the bootstrap.
        trust_remote_code: let the models' own Python code run.

    Returns:
        Flat, numbers only. `*_ms` are medians over all pairs; `ttft_speedup`, `prefill_speedup` and
        `decode_speedup` medians of paired ratios, with `_low` and `_high`; `ttft_ideal` and
        `prefill_ideal` the FLOP ratios. `vision_*` is there only where a vision tower was found and
        ran. `tokens` is the median prompt, `on_gpu` is 1 or 0, `threads` are torch's on the CPU.

    Raises:
        InputError: there are no rows.
    """
    processor = open_processor(dense_dir, trust_remote_code=trust_remote_code)
    models = (
        open_model(dense_dir, dtype=params.dtype, trust_remote_code=trust_remote_code),
        open_model(tuned_dir, dtype=params.dtype, trust_remote_code=trust_remote_code),
    )
    return compare(models, processor, rows, params=params, seed=seed)
