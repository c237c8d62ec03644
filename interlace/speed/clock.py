"""Time requests: one on one model, phase by phase, or many on two models in turn.

The clock runs from the call to the first token (vision tower, prefill, one greedy sample), and then
to the last of `new_tokens`. Inputs are already on the device.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from interlace.model.chat import Inputs
from interlace.model.states import hooked
from interlace.params.timing import Ttft
from interlace.speed.flops import Work

Spans = dict[str, list[list[Any]]]  # by phase, [start, end] readings of each of its runs
Pairs = list[list[tuple["RequestTiming", "RequestTiming"]]]  # [R][P], of dense and tuned
DENSE, TUNED = 0, 1
VISION_NAMES = ("visual", "vision_tower", "vision_model", "vision_encoder", "image_tower")


@dataclass
class RequestTiming:
    """Times of one request on one model; `None` for a phase that did not run.

    Attributes:
        ttft: from call to first token, ms.
        end_to_end: from call to the last of `new_tokens`, ms.
        decode: each token after the first, ms.
        prefill: the decoder's layers and final norm, within `ttft`, ms.
        vision: the vision tower with Qwen's merger, within `ttft`, ms.
    """

    ttft: float
    end_to_end: float
    decode: float | None
    prefill: float | None
    vision: float | None


def vision_tower(model: nn.Module) -> nn.Module | None:
    """Return the module that turns images into features; `None` if it cannot be told for sure."""
    get_encoder = getattr(model, "get_encoder", None)
    encoder: Any = None
    if get_encoder is not None:
        try:
            encoder = get_encoder(modality="image")
        except (TypeError, ValueError, AttributeError):  # a model's own code may know no modality
            encoder = None
    if encoder is None or encoder is model or encoder is getattr(model, "model", None):
        modules = model.named_modules()
        encoder = next((m for name, m in modules if name.split(".")[-1] in VISION_NAMES), None)
    return encoder if isinstance(encoder, nn.Module) else None


@contextmanager
def metered_phases(model: nn.Module, read: Callable[[], Any]) -> Iterator[Spans]:
    """Read a meter whenever the vision tower or the decoder starts and ends."""
    spans: Spans = {"vision": [], "prefill": []}
    towers = {"vision": vision_tower(model), "prefill": model.get_decoder()}  # type: ignore[operator]
    modules = {phase: tower for phase, tower in towers.items() if isinstance(tower, nn.Module)}

    def start(phase: str, *_: object) -> None:
        spans[phase].append([read()])

    def end(phase: str, _: object) -> None:
        spans[phase][-1].append(read())

    with hooked(modules, on_call=start, on_return=end):
        yield spans


def _total(runs: list[list[Any]], between: Callable[[Any, Any], float]) -> float | None:
    return sum(between(start, end) for start, end in runs) if runs else None


def first_token(model: nn.Module, inputs: Inputs) -> tuple[torch.Tensor, Any]:
    """Run the vision tower, the prefill and one greedy sample.

    Args:
        model: a `ForConditionalGeneration`.
        inputs: of B prompts of one length, [B, T] per token, on the model's device.

    Returns:
        The tokens, [B, 1], and the cache of the T prompt tokens.
    """
    output = model(**inputs, use_cache=True, logits_to_keep=1)
    return output.logits[:, -1:].argmax(-1), output.past_key_values


def next_token(model: nn.Module, tokens: torch.Tensor, cache: Any) -> torch.Tensor:
    """Generate one greedy token after those in the cache, [B, 1] to [B, 1]; the cache grows."""
    # No mask: prompts have no padding, and Qwen would place all T + 1 tokens of a mask anew.
    output = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
    token: torch.Tensor = output.logits[:, -1:].argmax(-1)
    return token


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _meter(device: torch.device) -> tuple[Callable[[], Any], Callable[[Any, Any], float]]:
    """Return a clock that does not stall a CUDA device, and the ms between two readings."""

    def now() -> float:
        _synchronise(device)
        return time.perf_counter()

    def read() -> Any:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    if device.type != "cuda":
        return now, lambda start, end: 1000 * (end - start)
    return read, lambda start, end: float(start.elapsed_time(end))


def time_request(model: nn.Module, inputs: Inputs, new_tokens: int = 1) -> RequestTiming:
    """Time one request once, up to the last of `new_tokens`."""
    device = inputs["input_ids"].device
    read, between = _meter(device)
    with metered_phases(model, read) as spans:
        _synchronise(device)
        start = time.perf_counter()
        tokens, cache = first_token(model, inputs)
        _synchronise(device)
        first = time.perf_counter()
    for _ in range(new_tokens - 1):
        tokens = next_token(model, tokens, cache)
        tokens.tolist()  # as a server would: each token is read before the next
    last = time.perf_counter() if new_tokens > 1 else first
    return RequestTiming(
        ttft=1000 * (first - start),
        end_to_end=1000 * (last - start),
        decode=1000 * (last - first) / (new_tokens - 1) if new_tokens > 1 else None,
        prefill=_total(spans["prefill"], between),
        vision=_total(spans["vision"], between),
    )


def flop_counter() -> FlopCounterMode:
    """Return torch's counter, with a count of attention that knows shared keys and values.

    By itself it has none for the CPU before torch 2.15, and refuses queries with more heads than
    keys on a GPU.
    """
    aten = torch.ops.aten
    attention = (
        aten._scaled_dot_product_flash_attention_for_cpu,
        aten._scaled_dot_product_flash_attention,
        aten._scaled_dot_product_efficient_attention,
        aten._scaled_dot_product_cudnn_attention,
    )
    return FlopCounterMode(display=False, custom_mapping=dict.fromkeys(attention, attention_flops))


def attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """Count the FLOPs of attention over all pairs of tokens, by the shapes of its arguments.

    Args:
        query: [B, heads, queries, d].
        key: [B, heads of keys, keys, d]; fewer heads are shared by several queries.
        value: [B, heads of keys, keys, d of values].
    """
    rows, heads, queries, width = query
    return 2 * rows * heads * queries * key[-2] * (width + value[-1])


def count_flops(model: nn.Module, inputs: Inputs, new_tokens: int = 1) -> Work:
    """Count the FLOPs up to the first token, and of the second if `new_tokens` exceeds one."""
    counter = flop_counter()
    with counter, metered_phases(model, counter.get_total_flops) as spans:
        tokens, cache = first_token(model, inputs)
    total = counter.get_total_flops()
    decode = 0
    if new_tokens > 1:
        with (decode_counter := flop_counter()):
            next_token(model, tokens, cache)
        decode = decode_counter.get_total_flops()
    prefill = _total(spans["prefill"], lambda start, end: end - start)
    return Work(total=total, prefill=int(prefill or 0), decode=decode)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Switch Python's garbage collector off while requests are timed."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def time_pairs(
    models: tuple[nn.Module, nn.Module], requests: Sequence[Inputs], params: Ttft, seed: int
) -> Pairs:
    """Time every request `repeats` times on both models, [R][P]; which goes first alternates."""
    rng = np.random.default_rng(seed)
    pairs: Pairs = [[] for _ in requests]
    leads = rng.integers(2, size=len(requests))
    total = len(requests) * (params.warmup + params.repeats)
    with tqdm(total=total, desc="time to first token", unit="pair") as bar, _no_collection():
        for number in range(-params.warmup, params.repeats):
            for request in rng.permutation(len(requests)):
                order = (DENSE, TUNED) if (leads[request] + number) % 2 else (TUNED, DENSE)
                times = {
                    model: time_request(models[model], requests[request], params.new_tokens)
                    for model in order
                }
                if number >= 0:  # negative numbers are warm-up
                    pairs[request].append((times[DENSE], times[TUNED]))
                bar.update()
    return pairs
