"""Compare the measured speedup with that of FLOPs, at four ratios.

    make bench-ttft

Dense and pruned models share their weights in one process: a pruned model is a view of the dense
model without some layers. All models take turns on the same request, round by round. A speedup is
the median over rounds of dense time / pruned time in the same round.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from benchmarks.random_model import random_qwen3_vl_of
from interlace.model.bypass import without
from interlace.model.chat import Inputs
from interlace.model.decoder import decoder_layers
from interlace.model.open import open_model, open_processor
from interlace.speed.clock import RequestTiming, count_flops, time_request
from interlace.speed.compare import ratio_interval
from interlace.speed.flops import ideals
from interlace.speed.requests import Shape, drawn_requests, request_of

DEMO, ROWS = Path("data/demo/model"), Path("data/demo/train.parquet")
RATIOS = (0.1, 0.15, 0.2, 0.25)
PROTECTED = 3  # leading layers, which DeepStack feeds
TARGET = 0.95  # least measured speedup over ideal for prefill
WIDEST = 0.1  # interval of a reported speedup, share of the speedup
CPU_SHAPE = Shape(448, 336, 40)  # 140 image tokens of 2B's processor
PHASES = ("prefill", "ttft", "decode")
HEAD = """# Speedup of pruned models

`make bench-ttft` writes this page, on {where}. The ideal speedup is the ratio of FLOPs, dense over
pruned, by torch's counter. Prefill is the decoder on the prompt; the first token adds the vision
tower and the head, which are not pruned; decode is each further token. A speedup is the median over
{rounds} rounds; in each round the dense model and all pruned models answer the same request in
turn, in one process, on shared weights. Its 95% bootstrap interval is in brackets. "of ideal" is
measured over ideal speedup. A speedup is "unsure" where its interval is wider than a tenth of it.
The target for prefill is {target:.2f} of ideal.
"""
Times = dict[float, list[RequestTiming]]  # by ratio, 0 for dense; one per round


@dataclass(frozen=True)
class Case:
    """A model with its pruned views, and the requests to send them.

    Attributes:
        name: for the heading.
        models: by ratio, 0 for the dense one.
        requests: on the models' device.
    """

    name: str
    models: dict[float, Any]
    requests: Mapping[str, Inputs]


def evenly_spaced(n_layers: int, drops: int) -> list[int]:
    """Choose layers to drop, evenly spaced; which layers go does not change the time."""
    indices = np.linspace(PROTECTED, n_layers - 1, drops + 2)[1:-1]
    return sorted({round(float(index)) for index in indices})


def pruned_views(model: Any) -> dict[float, Any]:
    """Return the dense model at 0, and a view without floor(ratio L) layers per ratio."""
    n_layers = len(decoder_layers(model))
    views = {
        ratio: without(model, evenly_spaced(n_layers, int(ratio * n_layers))) for ratio in RATIOS
    }
    return {0.0: model} | views


def on_device(inputs: Inputs, model: Any) -> Inputs:
    """Move inputs to the model's device and dtype."""
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }


def in_turn(case: Case, inputs: Inputs, rounds: int, bar: Any) -> Times:
    """Time all models on a request, in random order each round, after a warm-up round."""
    rng = np.random.default_rng(0)
    times: Times = {ratio: [] for ratio in case.models}
    gc.collect()
    gc.disable()
    try:
        for number in range(-1, rounds):
            for index in rng.permutation(len(case.models)):
                ratio = list(case.models)[index]
                timing = time_request(case.models[ratio], inputs, new_tokens=3)
                if number >= 0:
                    times[ratio].append(timing)
                bar.update()
    finally:
        gc.enable()
    return times


def measure(case: Case, rounds: int) -> dict[str, tuple[Times, dict[float, dict[str, Any]]]]:
    """Return times and ideal speedups (by ratio) by request."""
    total = len(case.requests) * len(case.models) * (rounds + 1)
    results = {}
    with torch.inference_mode(), tqdm(total=total, desc=case.name, unit="request") as bar:
        for name, inputs in case.requests.items():
            times = in_turn(case, inputs, rounds, bar)
            flops = {ratio: count_flops(model, inputs, 2) for ratio, model in case.models.items()}
            ideal = {ratio: ideals([(flops[0.0], flops[ratio])]) for ratio in RATIOS}
            results[name] = (times, ideal)
    return results


def speedup(results: Sequence[Times], ratio: float, phase: str) -> tuple[float, float, float]:
    """Return the median speedup of a phase over rounds of all requests, and its interval."""
    dense, pruned = (
        np.array([[getattr(timing, phase) for timing in times[which]] for times in results])
        for which in (0.0, ratio)
    )  # [requests, rounds]
    return ratio_interval(dense, pruned, confidence=0.95, seed=0)


def ratio_table(results: Mapping[str, tuple[Times, dict[float, dict[str, Any]]]]) -> str:
    """Format the table: a row per ratio; per phase speedup, interval and share of the ideal."""
    lines = [
        "| ratio | prefill | of ideal | first token | of ideal | decode | of ideal |",
        "| --: | --: | --: | --: | --: | --: | --: |",
    ]
    times = [case_times for case_times, _ in results.values()]
    for ratio in RATIOS:
        cells = [f"{100 * ratio:g}%"]
        for phase in PHASES:
            middle, low, high = speedup(times, ratio, phase)
            ideals_of_ratio = [
                ideals_by_ratio[ratio][f"{phase}_ideal"] for _, ideals_by_ratio in results.values()
            ]
            ideal = float(np.median(ideals_of_ratio))
            narrow = high - low <= WIDEST * middle
            cells += [
                f"{f'{middle:.3f}' if narrow else 'unsure'} [{low:.3f}, {high:.3f}]",
                f"{middle / ideal:.3f}" if narrow else "\u2013",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    dense = [timing for case_times in times for timing in case_times[0.0]]
    at = ", ".join(
        f"{phase} {np.median([getattr(t, phase) for t in dense]):.1f} ms" for phase in PHASES
    )
    return "\n".join(lines) + f"\n\nThe dense model: {at} (decode: per token).\n"


def demo_case(requests: int) -> Case:
    """Open the demo's model on rows of its data."""
    processor, model = open_processor(DEMO), open_model(DEMO)
    rows = [row for row in pq.read_table(ROWS).slice(0, 500).to_pylist() if row["images"]]
    sample = drawn_requests(processor, rows, requests, seed=0)
    inputs = {f"{i}": on_device(request.batch(1), model) for i, request in enumerate(sample)}
    return Case("the demo's model", pruned_views(model), inputs)


def random_case(size: str, shapes: Mapping[str, Shape], dtype: torch.dtype, **sizes: int) -> Case:
    """Build Qwen3-VL of a size with random weights, on requests of some shapes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, processor = random_qwen3_vl_of(size, device, dtype, **sizes)
    inputs = {
        name: on_device(request_of(processor, name, shape).batch(1), model)
        for name, shape in shapes.items()
    }
    return Case(f"Qwen3-VL-{size}", pruned_views(model), inputs)


def faster_dtype() -> torch.dtype:
    """Return float32 or bfloat16, whichever this CPU multiplies faster."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(256, 2048, dtype=dtype), torch.ones(2048, 4096, dtype=dtype)
        torch.mm(left, right)
        begin = time.perf_counter()
        for _ in range(3):
            torch.mm(left, right)
        seconds[dtype] = time.perf_counter() - begin
    return min(seconds, key=lambda dtype: seconds[dtype])


@click.command()
@click.option("--rounds", default=8, show_default=True, help="Timed rounds per request.")
@click.option("--requests", default=6, show_default=True, help="Rows of the demo to time.")
@click.option("--layers", default=28, show_default=True, help="Layers of the 2B-shaped model.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/bench-ttft.md"))
def main(rounds: int, requests: int, layers: int, out: Path) -> None:
    """Measure and write docs/bench-ttft.md."""
    on_gpu = torch.cuda.is_available()
    where = "a GPU" if on_gpu else f"a CPU with {torch.get_num_threads()} threads"
    text = HEAD.format(where=where, rounds=rounds, target=TARGET)
    demo = demo_case(requests)
    n_layers = len(decoder_layers(demo.models[0.0]))
    text += f"\n## The demo's model, {n_layers} layers\n\n{ratio_table(measure(demo, 4 * rounds))}"
    dtype = torch.bfloat16 if on_gpu else faster_dtype()
    case = random_case("2B", {"one image": CPU_SHAPE}, dtype, num_hidden_layers=layers)
    tokens = case.requests["one image"]["input_ids"].shape[1]
    text += (
        f"\n## The shape of Qwen3-VL-2B\n\nRandom weights, {layers} layers, {str(dtype)[6:]}; one"
        f" image of {CPU_SHAPE.width} x {CPU_SHAPE.height} pixels, {tokens} tokens in all.\n\n"
    )
    text += ratio_table(measure(case, rounds))
    out.write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
