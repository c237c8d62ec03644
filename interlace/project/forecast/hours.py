"""Tokens and seconds by stage: FLOPs over rates, and what is read and written."""

from __future__ import annotations

import math
from dataclasses import dataclass

from interlace.params.healing import Recipe
from interlace.project.forecast.memory import pass_rows, request_tokens, trained_weights
from interlace.project.forecast.rates import Rates
from interlace.project.forecast.setting import Setting
from interlace.project.forecast.sizes import Sizes
from interlace.training.rows import update_count

START = 15.0  # seconds to start a stage: imports
READ = 1e9  # bytes/s of weights from the disk
WRITTEN = 0.5e9  # bytes/s of a checkpoint: docs/bench-export.md
FETCHED = 100e6  # bytes/s from the hub
DRAWN = 2000  # rows per second: docs/bench-sample.md
WORKERS = 4  # processes that open images beside a GPU


@dataclass(frozen=True)
class Cost:
    """Work of a stage.

    Attributes:
        tokens: that the model reads or writes, those of images among them.
        seconds: from the start to the end.
    """

    tokens: float
    seconds: float


def forward_flops(sizes: Sizes, tokens: float, row: float) -> float:
    """Return the FLOPs of tokens through the decoder, in rows of a length.

    Products of matrices, and attention to the tokens before.
    """
    return tokens * sizes.n_layers * (2 * sizes.active + 2 * row * sizes.query)


def tower_flops(sizes: Sizes, image_tokens: float) -> float:
    """Return the FLOPs of image tokens through the vision tower and the projector."""
    projector = sizes.also.get("projector", 0)
    patches = sizes.patch.per_token * (sizes.outside - projector)
    return image_tokens * 2 * (patches + projector)


def _pass_seconds(flops: float, rate: float, passes: float, sizes: Sizes, rates: Rates) -> float:
    """Return the seconds of some passes: of their FLOPs, or of starting all layers' work."""
    return max(flops / rate, passes * sizes.n_layers * rates.layer_seconds)


def _with_rows(setting: Setting, seconds: float, rows: float) -> float:
    """Return the seconds of a stage that opens rows: beside the model, or before it on a CPU."""
    opening = rows * setting.rows.seconds
    return max(seconds, opening / WORKERS) if setting.machine.gpus else seconds + opening


def _loading(setting: Setting, sizes: Sizes, models: int = 1) -> float:
    return START + models * sizes.total * sizes.stored_bytes / READ


def drawing(setting: Setting) -> Cost:
    """Return the cost of `sample`, with what it and `pin` fetch."""
    rows = setting.rows
    size = rows.train * rows.row_bytes
    fetched = setting.fetched
    if not rows.counted:
        fetched += size / setting.params.data.group_share
    seconds = fetched / FETCHED + rows.train / DRAWN + size / WRITTEN
    return Cost(0, 2 * START + seconds)


def collecting_cost(setting: Setting, rates: Rates) -> Cost:
    """Return the cost of `collect`."""
    rows, sizes = setting.rows.calibration + setting.rows.probes, setting.dense
    tokens = rows * setting.prompts.mean
    images = rows * setting.image_tokens(setting.params.measure.max_pixels)
    flops = forward_flops(sizes, tokens, setting.prompts.mean) + tower_flops(sizes, images)
    passes = tokens / setting.params.measure.batch_tokens
    seconds = _pass_seconds(flops, rates.forward, passes, sizes, rates)
    processes = setting.processes
    return Cost(tokens, _loading(setting, sizes) + _with_rows(setting, seconds, rows) / processes)


def sensing_cost(setting: Setting, rates: Rates, criterion: str) -> Cost:
    """Return the cost of `sensitivity`: one process, passes without the layers that went."""
    options, sizes = setting.params.sensitivity, setting.dense
    rows = min(options.samples, setting.rows.calibration)
    tokens = rows * setting.answered.mean
    n = sizes.n_layers
    steps = math.floor(options.max_ratio * n)
    passes = {
        "sleb": sum((n - step) * (n - step - 1) / n / 2 for step in range(steps)),  # shared states
        "search": float(options.passes),
        "taylor": 4.0,
    }[criterion]
    flops = forward_flops(sizes, tokens, setting.answered.mean)
    flops += tokens * setting.rows.answers / max(1.0, setting.answered.mean) * 2 * sizes.head
    batches = passes * max(1.0, tokens / setting.params.measure.batch_tokens)
    seconds = _pass_seconds(passes * flops, rates.forward, batches, sizes, rates)
    return Cost(passes * tokens, _loading(setting, sizes) + seconds)


def exporting_cost(setting: Setting, size: float) -> Cost:
    """Return the cost of `export`: bytes written, and both models opened to compare them."""
    samples = setting.params.export.parity_samples
    models = 2 if samples else 0
    return Cost(
        2 * samples * setting.prompts.mean,
        _loading(setting, setting.dense, models) + size / WRITTEN,
    )


def training_cost(setting: Setting, rates: Rates, sizes: Sizes, recipe: Recipe) -> Cost:
    """Return the cost of end-to-end training: forward, again where checkpointed, and backward."""
    if not (recipe.max_steps and trained_weights(setting, recipe)):
        return Cost(0, START)
    updates = update_count(recipe, setting.trained_rows)
    rows = updates * recipe.batch_size
    tokens = rows * setting.trained.mean
    images = rows * setting.image_tokens(recipe.max_pixels)
    forward = forward_flops(sizes, tokens, setting.trained.mean)
    passes = 3 if recipe.gradient_checkpointing is not False else 2
    flops = passes * forward + tokens * 2 * min(setting.tunes, sizes.n_layers) * sizes.active
    flops += rows * setting.rows.answers * 4 * sizes.head + tower_flops(sizes, images)
    processes = setting.processes
    runs = passes * rows / pass_rows(recipe, processes)
    seconds = _pass_seconds(flops, rates.training, runs, sizes, rates)
    return Cost(tokens, _loading(setting, sizes) + _with_rows(setting, seconds, rows) / processes)


def evaluating_cost(setting: Setting, rates: Rates, sizes: Sizes, b: int) -> Cost:
    """Return the cost of `evaluate` on one model: prompts, and answers as long as they may be."""
    batch = setting.params.evaluate.batch_size
    tokens = seconds = 0.0
    for benchmark in setting.questions:
        prompts = benchmark.rows * benchmark.tokens.mean
        flops = forward_flops(sizes, prompts, benchmark.tokens.mean)
        flops += tower_flops(sizes, benchmark.rows * benchmark.image)
        batches = math.ceil(benchmark.rows / batch)
        step = _step_seconds(sizes, rates, b, batch)
        seconds += _with_rows(
            setting, _pass_seconds(flops, rates.forward, batches, sizes, rates), benchmark.rows
        )
        seconds += batches * benchmark.answer * step
        tokens += prompts + benchmark.rows * benchmark.answer
    return Cost(tokens, _loading(setting, sizes) + seconds / setting.processes)


def _step_seconds(sizes: Sizes, rates: Rates, b: int, rows: float) -> float:
    """Return the seconds of the next token of some rows."""
    active = sizes.n_layers * sizes.active + sizes.head
    return max(
        b * active / rates.bandwidth,
        2 * rows * active / rates.forward,
        sizes.n_layers * rates.layer_seconds,
    )


def answering_cost(setting: Setting, rates: Rates) -> Cost:
    """Return the cost of `answers`, each as long as it may be."""
    options, sizes = setting.params.answers, setting.dense
    rows = setting.trained_rows
    recipe = setting.params.finetune
    prompt = setting.rows.tokens(
        setting.rows.prompt, sizes.patch, recipe.max_pixels, recipe.max_length
    )
    tokens = rows * prompt.mean
    batch = max(1.0, options.batch_tokens / (prompt.mean + options.max_new_tokens))
    batches = math.ceil(rows / batch)
    step = _step_seconds(sizes, rates, setting.element(setting.params.dtype), batch)
    flops = forward_flops(sizes, tokens, prompt.mean)
    flops += tower_flops(sizes, rows * setting.image_tokens(recipe.max_pixels))
    seconds = _pass_seconds(flops, rates.forward, batches, sizes, rates)
    seconds += batches * options.max_new_tokens * step
    written = rows * options.max_new_tokens
    return Cost(tokens + written, _loading(setting, sizes) + seconds / setting.processes)


def timing_cost(setting: Setting, rates: Rates) -> Cost:
    """Return the cost of `ttft`: pairs of requests to both models, one after the other."""
    ttft, b = setting.params.ttft, setting.element(setting.params.dtype)
    requests = request_tokens(setting)
    median = sorted(requests)[len(requests) // 2]
    sent = [(1, *request) for request in requests]
    sent += [(size, *median) for size in ttft.batch_sizes]
    repeats, tokens, seconds = ttft.repeats + ttft.warmup, 0.0, 0.0
    for sizes in (setting.dense, setting.pruned):
        for rows, length, image in sent:
            flops = rows * (forward_flops(sizes, length, length) + tower_flops(sizes, image))
            seconds += repeats * _pass_seconds(flops, rates.forward, 1, sizes, rates)
            seconds += repeats * (ttft.new_tokens - 1) * _step_seconds(sizes, rates, b, rows)
            tokens += repeats * rows * (length + ttft.new_tokens)
    return Cost(tokens, _loading(setting, setting.dense, 2) + seconds)
