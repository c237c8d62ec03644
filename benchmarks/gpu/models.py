"""`export`, `evaluate` and the time to first token of a whole model, on a GPU."""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from tqdm import tqdm

from benchmarks import export, ttft
from benchmarks.gpu.setting import Figure, Result, Setting
from benchmarks.random_model import long_rows, random_qwen3_vl_of
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.model.bypass import without
from interlace.model.decoder import decoder_layers
from interlace.model.generation import AnswerGenerator
from interlace.params.exporting import Export
from interlace.params.measuring import Answers
from interlace.pruning.dense import Dense
from interlace.pruning.export import export_checkpoint as write_pruned
from interlace.pruning.parity import check_parity
from interlace.samples.rows import write_rows
from interlace.speed.requests import request_of

PUBLISHED = Path("data/published.csv")
LONG = 8000  # tokens of a request that is timed once, after a warm-up
PROMPT = "POPE"  # the benchmark whose typical request is answered
CELLS = " / ".join(("measured", "published", "ideal"))


def exporting(setting: Setting) -> Iterator[Result]:
    """Export a checkpoint without a quarter of its layers, and compare both models' states."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_layers = _save(setting, folder / "dense")
        plan = export.quarter(n_layers)
        begin = time.perf_counter()
        write_pruned(folder / "dense", plan, folder / "pruned")
        seconds = time.perf_counter() - begin
        copy_seconds = export.run_cp(folder / "pruned", folder / "copy")
        size = sum(path.stat().st_size for path in (folder / "pruned").iterdir()) / 1e9
        write_rows(iter(long_rows(4)), folder / "rows")
        answers = Answers(dtype=str(setting.dtype).removeprefix("torch."))
        dense = Dense(Checkpoint(folder / "dense"), folder / "rows", answers)
        begin = time.perf_counter()
        report = check_parity(folder / "pruned", dense, plan, Export())
        compared = time.perf_counter() - begin
    label = f"export, {setting.small} without {len(plan.drop)} of {n_layers} layers, {size:.1f} GB"
    span = f"{report.layers} layers and logits, {report.tokens:,} tokens; {compared:.1f} s"
    difference = f"{report.greatest_difference}"
    yield Result(
        [
            Figure(label, f"{seconds:.1f} s", f"cp of the result {copy_seconds:.1f} s"),
            Figure("export, greatest difference to the dense model", difference, span),
        ]
    )


def _save(setting: Setting, folder: Path) -> int:
    """Write a checkpoint of random weights; return the number of its decoder layers."""
    model, processor = random_qwen3_vl_of(setting.small, setting.device, setting.dtype)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return len(decoder_layers(model))


def answering(setting: Setting) -> Iterator[Result]:
    """Answer prompts with one image in batches, by the dense and by a pruned model in turn."""
    count, longest = setting.answers
    model, processor = random_qwen3_vl_of(setting.large, setting.device, setting.dtype)
    prompt = dict(request_of(processor, PROMPT, setting.shapes[PROMPT]).encoded)
    prompt.pop("labels", None)
    n_layers = len(decoder_layers(model))
    drop = export.quarter(n_layers).drop
    generators = {
        name: AnswerGenerator(view, processor)
        for name, view in {"dense": model, "pruned": without(model, drop)}.items()
    }
    for generator in generators.values():  # all answers are as long
        generator.end_ids = frozenset()
        generator.model.generation_config.eos_token_id = None
    seconds: dict[str, list[float]] = {name: [] for name in generators}
    for number in tqdm(range(setting.rounds + 1), desc="evaluate", unit="round"):
        for name, generator in generators.items():
            begin = time.perf_counter()
            answers = generator.generate([prompt] * count, longest)
            if number:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - begin)
            if any(len(answer) != longest for answer in answers):
                raise AssertionError(f"evaluate: {name} ended an answer early")
    speedup = median(a / b for a, b in zip(seconds["dense"], seconds["pruned"], strict=True))
    rates = {name: f"{count * longest / median(times):,.0f}" for name, times in seconds.items()}
    tokens = f"{count} prompts of {len(prompt['input_ids'])} tokens, {longest} new ones each"
    fewer = f"{speedup:.2f} times the dense rate; {n_layers / (n_layers - len(drop)):.2f} by layers"
    yield Result(
        [
            Figure(f"evaluate, {setting.large}, {tokens}", f"{rates['dense']} tokens/s"),
            Figure(f"evaluate, {len(drop)} layers dropped", f"{rates['pruned']} tokens/s", fewer),
        ]
    )


def first_token(size: str) -> Callable[[Setting], Iterator[Result]]:
    """Return the part that times first tokens of a published size, as table 4 does."""

    def timing(setting: Setting) -> Iterator[Result]:
        built = size if setting.device == "cuda" else setting.large
        case = ttft.random_case(built, setting.shapes, setting.dtype)
        published = published_speedups(size)
        heading = " | ".join(f"{100 * ratio:g}%" for ratio in ttft.RATIOS)
        rule = f"| --- | {' | '.join(['--:'] * (1 + len(ttft.RATIOS)))} |"
        lines = [f"| Qwen3-VL-{size} | tokens | {heading} |", rule]
        shares: list[float] = []  # of the ideal prefill
        dense_and_pruned = []
        for name in sorted(case.requests, key=lambda name: _tokens(case, name)):
            long = _tokens(case, name) > LONG
            one = replace(case, requests={name: case.requests[name]})
            times, ideal = ttft.measure(one, 1 if long else setting.rounds)[name]
            dense_and_pruned.append(times)
            cells = []
            for ratio in ttft.RATIOS:
                prefill, token = (ttft.speedup([times], ratio, p)[0] for p in ("prefill", "ttft"))
                shares.append(prefill / ideal[ratio]["prefill_ideal"])
                figures = token, published[name, ratio], ideal[ratio]["ttft_ideal"]
                cells.append(" / ".join(f"{figure:.2f}" for figure in figures))
            lines.append(f"| {name} | {_tokens(case, name):,} | {' | '.join(cells)} |")
            speedups = [ttft.speedup([t], ttft.RATIOS[-1], "ttft")[0] for t in dense_and_pruned]
            figure = Figure(
                f"first token, Qwen3-VL-{size}, {100 * ttft.RATIOS[-1]:g}% dropped",
                f"{median(speedups):.2f}x",
                f"median of {len(speedups)} requests; prefill {np.median(shares):.3f} of ideal, the"
                f" lowest {min(shares):.3f}; target {ttft.TARGET}",
            )
            yield Result([figure], "\n".join(lines) + "\n")

    return timing


def _tokens(case: ttft.Case, name: str) -> int:
    return int(case.requests[name]["input_ids"].shape[1])


def published_speedups(size: str) -> dict[tuple[str, float], float]:
    """Read table 4 of arXiv 2511.19676: speedup of the first token by benchmark and ratio."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "ttft_speedup"]
    return {
        (row["benchmark"], float(row["ratio"])): float(row["value"])
        for row in rows
        if row["model"] == f"Qwen3-VL-{size}"
    }
