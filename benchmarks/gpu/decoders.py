"""`collect` and `finetune` on a decoder of a published size, on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from tqdm import tqdm

from benchmarks import collect, finetune
from benchmarks.gpu.setting import Figure, Result, Setting, free, peak, reset_peak, weights
from benchmarks.random_model import long_rows, random_decoder_of
from interlace.errors import InputError
from interlace.model.attention import PACKAGES, chosen_attention
from interlace.model.chat import encode_training
from interlace.model.open import open_processor

WAYS = {"fast": "one pass", "small": "passes of two rows", "plain": "the plain way"}
PUBLISHED = "a pass of {rows} rows with gradient checkpointing, as published"
BUILT_IN = ("sdpa", "eager")


def collecting(setting: Setting) -> Iterator[Result]:
    """Time the pass of `collect` beside the bare decoder's."""
    count, tokens = setting.prompts
    model = random_decoder_of(setting.large, setting.device, setting.dtype)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 1000, (count, tokens), generator=generator).to(setting.device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    case = collect.Case(f"decoder of {setting.large}", model, [batch] * 4)
    reset_peak()
    seconds, bare_seconds, ratio = collect.compare(
        collect.one_pass,
        collect.bare_decoder,
        case,
        "collect / the bare decoder",
        2 * setting.rounds - 1,
    )
    total = len(case.batches) * ids.numel()
    label = f"collect, {setting.large}'s decoder, batches of {count} prompts of {tokens:,} tokens"
    bare = f"bare decoder {total / bare_seconds:,.0f}, {ratio:.2f} times its time (target 1.10)"
    yield Result(
        [
            Figure(label, f"{total / seconds:,.0f} tokens/s", bare),
            Figure("collect, peak memory", peak(), f"weights {weights(model)}"),
        ]
    )


def updating(setting: Setting) -> Iterator[Result]:
    """Time an update of `finetune` with each attention implementation, beside the plain way."""
    figures: list[Figure] = []
    for name in (*BUILT_IN, *PACKAGES):
        if reason := obstacle(setting, name):
            figures.append(Figure(f"finetune, {name}", "not run", reason))
        else:
            figures += _updates(setting, name)
        yield Result(figures)


def obstacle(setting: Setting, attention: str) -> str | None:
    """Return why an attention implementation does not run here; `None`: it does."""
    dtype = str(setting.dtype).removeprefix("torch.")

    def build(name: str) -> None:
        random_decoder_of("tiny", "meta", setting.dtype, name)

    try:
        chosen_attention(attention, dtype, model_type="qwen3_vl", build=build)
    except InputError as error:
        return str(error)
    return None


def _updates(setting: Setting, attention: str) -> Iterator[Figure]:
    """Yield the figures of all ways to update, with one attention implementation."""
    case = pruned_case(setting, attention)
    few, many = setting.rows
    cases = {way: replace(case, examples=case.examples[:few]) for way in WAYS}
    if attention != BUILT_IN[0]:
        cases.pop("plain")
    functions = {way: finetune.WAYS[way] for way in cases}
    cases["published"] = case
    functions["published"] = partial(finetune.interlace_update, micro=many, small=True)
    times: dict[str, list[float]] = {way: [] for way in cases}
    losses, peaks = {}, {}
    for number in tqdm(range(setting.rounds + 1), desc=f"finetune, {attention}", unit="round"):
        for way, function in functions.items():
            reset_peak()
            seconds, losses[way] = finetune.seconds(function, cases[way])
            peaks[way] = peak()
            if number:  # the first is a warm-up
                times[way].append(seconds)
    same = [loss for way, loss in losses.items() if way != "published"]
    if max(same) / min(same) - 1 > (1e-4 if setting.dtype is torch.float32 else 2e-2):
        raise AssertionError(f"finetune, {attention}: the losses differ: {losses}")
    labels = WAYS | {"published": PUBLISHED.format(rows=many)}
    for way in cases:
        reference = f"peak memory {peaks[way]}"
        if "plain" in times and way in WAYS:
            ratios = [a / b for a, b in zip(times[way], times["plain"], strict=True)]
            reference += f", {median(ratios):.2f} of the plain way's time"
        tokens = sum(len(example["input_ids"]) for example in cases[way].examples)
        value = f"{tokens / median(times[way]):,.0f} tokens/s"
        label = f"finetune, {setting.large}'s decoder, {attention}, {labels[way]}"
        yield Figure(label, value, reference)
    del case, cases, functions
    free()


def pruned_case(setting: Setting, attention: str) -> finetune.Case:
    """Build a decoder without a quarter of its layers, and rows of an update."""
    model = random_decoder_of(setting.large, setting.device, setting.dtype, attention).train()
    processor = open_processor(finetune.DEMO)
    rows = map(finetune.with_answer, long_rows(max(setting.rows)))
    examples = [encode_training(processor, row) for row in rows]
    return finetune.case_of(setting.large, model, examples)
