"""The rates a machine computes at: stated as shares of its peak, or timed on the model itself."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.model.families import vision_token_ids
from interlace.project.forecast.machine import Machine
from interlace.speed.clock import count_flops, time_request

FORWARD, TRAINING = 0.35, 0.2  # shares of a GPU's peak
CORE_FORWARD, CORE_TRAINING = 0.6, 0.5  # of what a CPU reaches in products of large matrices
LAYER_SECONDS = 1.1e-3  # of a layer in any pass, at least: docs/gpu.md, answers of the 8B
CORE_LAYER_SECONDS = 0.4e-3  # on a CPU: docs/bench-ttft.md, 9.4 ms for 24 layers
TOKENS = {"cuda": (8, 1024), "cpu": (4, 256)}  # of a timed pass: rows, and tokens of each
DECODED = 5  # tokens of a timed answer


@dataclass(frozen=True)
class Rates:
    """Rates of one process.

    Attributes:
        forward: in passes without gradients, FLOP/s.
        training: in passes with gradients, FLOP/s.
        layer_seconds: least time of a layer in any pass.
        bandwidth: of the memory that weights are read from, bytes/s.
        origin: a sentence on where these come from.
    """

    forward: float
    training: float
    layer_seconds: float
    bandwidth: float
    origin: str


def stated_rates(machine: Machine, processes: int) -> Rates:
    """Return rates as shares of the machine's peak; processes share the cores of a CPU."""
    peak = f"{machine.flops / 1e12:.3g} TFLOP/s"
    if machine.gpus:
        return Rates(
            FORWARD * machine.flops,
            TRAINING * machine.flops,
            LAYER_SECONDS,
            machine.bandwidth,
            f"passes reach {FORWARD:.0%} of {peak} of {machine.name}, with gradients"
            f" {TRAINING:.0%}; a layer takes at least {1000 * LAYER_SECONDS:g} ms, as timed on an"
            " H100 (docs/gpu.md): stated, not timed here",
        )
    return Rates(
        CORE_FORWARD * machine.flops / processes,
        CORE_TRAINING * machine.flops / processes,
        CORE_LAYER_SECONDS,
        machine.bandwidth,
        f"passes reach {CORE_FORWARD:.0%} of {peak}, the speed of large products on this CPU, with"
        f" gradients {CORE_TRAINING:.0%}; a layer takes at least {1000 * CORE_LAYER_SECONDS:g} ms",
    )


def timed_rates(checkpoint: Checkpoint, dtype: str, machine: Machine, processes: int) -> Rates:
    """Time a few passes of the dense model on this machine.

    Args:
        checkpoint: with its weights.
        dtype: to compute in.
        machine: this one.
        processes: that share the cores of a CPU.
    """
    model = checkpoint.open_model(dtype=dtype)
    inputs = _inputs(model)
    rows, length = inputs["input_ids"].shape
    with torch.inference_mode():
        flops = count_flops(model, inputs).total  # a warm-up as well
        timings = [time_request(model, inputs, DECODED) for _ in range(2)]
    seconds = min(timing.ttft for timing in timings) / 1000
    step = min(timing.decode or 0.0 for timing in timings) / 1000
    with_gradients = min(_gradient_seconds(model, inputs) for _ in range(2))
    shared = processes if not machine.gpus else 1
    n_layers = len(model.get_decoder().layers)
    return Rates(
        flops / seconds / shared,
        2 * flops / with_gradients / shared,
        step / n_layers,
        float("inf"),  # it is in the time of a step
        f"timed here on the model: {rows * length / seconds:,.0f} tokens/s in a pass of"
        f" {rows} rows of {length} tokens, {rows * length / with_gradients:,.0f} with gradients by"
        f" the states, {1000 * step:.1f} ms for the next token of these rows",
    )


def _inputs(model: Any) -> dict[str, torch.Tensor]:
    """Return rows of text tokens, drawn at random."""
    device = model.device
    rows, length = TOKENS.get(device.type, TOKENS["cpu"])
    text = model.config.get_text_config(decoder=True)
    images = set(vision_token_ids(model.config))
    words = torch.tensor([i for i in range(min(text.vocab_size, 1000)) if i not in images])
    drawn = torch.randint(len(words), (rows, length), generator=torch.Generator().manual_seed(0))
    ids = words[drawn].to(device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _gradient_seconds(model: Any, inputs: dict[str, torch.Tensor]) -> float:
    """Time a pass and the gradient by its first states."""
    model.requires_grad_(False)
    model.enable_input_require_grads()
    try:
        _synchronise(model)
        begin = time.perf_counter()
        model.base_model(**inputs, use_cache=False)[0].float().mean().backward()
        _synchronise(model)
        return time.perf_counter() - begin
    finally:
        model.disable_input_require_grads()


def _synchronise(model: Any) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
