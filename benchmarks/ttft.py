"""How much of the speedup that FLOPs promise is had, at four ratios; on a GPU, beside table 4.

    make bench-ttft

Dense and pruned models share their weights in one process: a pruned one is a view of the dense one
without some layers. All of them take turns on the same request, round by round, and a speedup is
the median over rounds of dense time / pruned time in the same round.
"""

from __future__ import annotations

import csv
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
from interlace.speed.requests import SHAPES, Shape, drawn_requests, request_of

DEMO, ROWS = Path("data/demo/model"), Path("data/demo/train.parquet")
PUBLISHED = Path("data/published.csv")
RATIOS = (0.1, 0.15, 0.2, 0.25)
PROTECTED = 3  # leading layers, that DeepStack feeds
TARGET = 0.95  # least measured speedup over ideal for prefill
WIDEST = 0.1  # interval of a speedup that is given, share of the speedup
CPU_SHAPE = Shape(448, 336, 40)  # 140 image tokens of 2B's processor
PARTS = ("prefill", "ttft", "decode")
HEAD = """# How much faster a pruned model is

`make bench-ttft` writes this page, on {where}. The ideal is the ratio of FLOPs, dense over pruned,
by torch's counter: what dropping the layers would give if time were FLOPs and all else unchanged.
Prefill is the decoder on the prompt; the first token adds vision tower and head, which stay; decode
is each further token. Each speedup is the median over {rounds} rounds in which the dense model and
all pruned ones answer the same request in turn, in one process, on shared weights; in brackets its
95% bootstrap interval; then measured over ideal. Intervals wider than a tenth give no
speedup. The target for prefill is {target:.2f}.
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


def spread(n_layers: int, drops: int) -> list[int]:
    """Layers to drop, evenly over those that are not protected: which ones makes no difference."""
    places = np.linspace(PROTECTED, n_layers - 1, drops + 2)[1:-1]
    return sorted({round(float(place)) for place in places})


def pruned_views(model: Any) -> dict[float, Any]:
    """The dense model as 0, and a view of it without floor(ratio L) layers for each ratio."""
    n_layers = len(decoder_layers(model))
    views = {ratio: without(model, spread(n_layers, int(ratio * n_layers))) for ratio in RATIOS}
    return {0.0: model} | views


def on_device(inputs: Inputs, model: Any) -> Inputs:
    """Inputs where the model is, in its precision."""
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }


def in_turn(case: Case, inputs: Inputs, rounds: int, bar: Any) -> Times:
    """Time all models on a request in each round, in another order each time; one warm-up round."""
    rng = np.random.default_rng(0)
    times: Times = {ratio: [] for ratio in case.models}
    gc.collect()
    gc.disable()
    try:
        for number in range(-1, rounds):
            for place in rng.permutation(len(case.models)):
                ratio = list(case.models)[place]
                took = time_request(case.models[ratio], inputs, new_tokens=3)
                if number >= 0:
                    times[ratio].append(took)
                bar.update()
    finally:
        gc.enable()
    return times


def measured(case: Case, rounds: int) -> dict[str, tuple[Times, dict[float, dict[str, Any]]]]:
    """By request: the times, and the ideals by ratio."""
    total = len(case.requests) * len(case.models) * (rounds + 1)
    found = {}
    with torch.inference_mode(), tqdm(total=total, desc=case.name, unit="request") as bar:
        for name, inputs in case.requests.items():
            times = in_turn(case, inputs, rounds, bar)
            works = {ratio: count_flops(model, inputs, 2) for ratio, model in case.models.items()}
            ideal = {ratio: ideals([(works[0.0], works[ratio])]) for ratio in RATIOS}
            found[name] = (times, ideal)
    return found


def speedup(results: Sequence[Times], ratio: float, part: str) -> tuple[float, float, float]:
    """The median speedup of a part over rounds of all requests, and its interval."""
    dense, pruned = (
        np.array([[getattr(took, part) for took in times[which]] for times in results])
        for which in (0.0, ratio)
    )  # [requests, rounds]
    return ratio_interval(dense, pruned, confidence=0.95, seed=0)


def ratio_table(found: Mapping[str, tuple[Times, dict[float, dict[str, Any]]]]) -> str:
    """A row per ratio, a column per part: speedup, interval and share of the ideal."""
    lines = [
        "| ratio | prefill | of ideal | first token | of ideal | decode | of ideal |",
        "| --: | --: | --: | --: | --: | --: | --: |",
    ]
    times = [each for each, _ in found.values()]
    for ratio in RATIOS:
        cells = [f"{100 * ratio:g}%"]
        for part in PARTS:
            middle, low, high = speedup(times, ratio, part)
            ideal = float(np.median([each[ratio][f"{part}_ideal"] for _, each in found.values()]))
            sure = high - low <= WIDEST * middle
            cells += [
                f"{f'{middle:.3f}' if sure else 'unsure'} [{low:.3f}, {high:.3f}]",
                f"{middle / ideal:.3f}" if sure else "\u2013",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    dense = [took for each in times for took in each[0.0]]
    at = ", ".join(
        f"{part} {np.median([getattr(t, part) for t in dense]):.1f} ms" for part in PARTS
    )
    return "\n".join(lines) + f"\n\nThe dense model: {at} (decode: per token).\n"


def demo_case(requests: int) -> Case:
    """The demo's model on rows of its data."""
    processor, model = open_processor(DEMO), open_model(DEMO)
    rows = [row for row in pq.read_table(ROWS).slice(0, 500).to_pylist() if row["images"]]
    drawn = drawn_requests(processor, rows, requests, seed=0)
    inputs = {f"{i}": on_device(each.batch(1), model) for i, each in enumerate(drawn)}
    return Case("the demo's model", pruned_views(model), inputs)


def random_case(size: str, shapes: Mapping[str, Shape], dtype: torch.dtype, **sizes: int) -> Case:
    """Qwen3-VL of a size with random weights, on requests of some shapes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, processor = random_qwen3_vl_of(size, device, dtype, **sizes)
    inputs = {
        name: on_device(request_of(processor, name, shape).batch(1), model)
        for name, shape in shapes.items()
    }
    return Case(f"Qwen3-VL-{size}", pruned_views(model), inputs)


def faster_dtype() -> torch.dtype:
    """float32 or bfloat16: the one in which this CPU multiplies sooner."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(256, 2048, dtype=dtype), torch.ones(2048, 4096, dtype=dtype)
        torch.mm(left, right)
        begin = time.perf_counter()
        for _ in range(3):
            torch.mm(left, right)
        seconds[dtype] = time.perf_counter() - begin
    return min(seconds, key=lambda dtype: seconds[dtype])


def published(size: str) -> dict[tuple[str, float], float]:
    """Table 4 of arXiv 2511.19676: speedup of the first token by benchmark and ratio."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "ttft_speedup"]
    return {
        (row["benchmark"], float(row["ratio"])): float(row["value"])
        for row in rows
        if row["model"] == f"Qwen3-VL-{size}"
    }


def table_4(size: str, rounds: int) -> str:
    """Speedup of the first token by benchmark and ratio, ours / published / ideal."""
    known = published(size)
    case = random_case(size, SHAPES, torch.bfloat16)
    found = measured(case, rounds)
    heading = " | ".join(f"{100 * ratio:g}%" for ratio in RATIOS)
    lines = [f"| benchmark | tokens | {heading} |", "| --- | --: | " + "--: | " * len(RATIOS)]
    for name, (times, ideal) in found.items():
        cells = [
            f"{speedup([times], ratio, 'ttft')[0]:.2f} / {known[name, ratio]:.2f}"
            f" / {ideal[ratio]['ttft_ideal']:.2f}"
            for ratio in RATIOS
        ]
        tokens = case.requests[name]["input_ids"].shape[1]
        lines.append(f"| {name} | {tokens} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--rounds", default=8, show_default=True, help="Timed rounds of each request.")
@click.option("--requests", default=6, show_default=True, help="Rows of the demo to send.")
@click.option("--layers", default=28, show_default=True, help="Of the 2B-shaped model; to try it.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/bench-ttft.md"))
def main(rounds: int, requests: int, layers: int, out: Path) -> None:
    """Measure, and write the page."""
    on_gpu = torch.cuda.is_available()
    where = "a GPU" if on_gpu else f"a CPU with {torch.get_num_threads()} threads"
    text = HEAD.format(where=where, rounds=rounds, target=TARGET)
    demo = demo_case(requests)
    n_layers = len(decoder_layers(demo.models[0.0]))
    text += f"\n## The demo's model, {n_layers} layers\n\n{ratio_table(measured(demo, 4 * rounds))}"
    dtype = torch.bfloat16 if on_gpu else faster_dtype()
    case = random_case("2B", {"one image": CPU_SHAPE}, dtype, num_hidden_layers=layers)
    tokens = case.requests["one image"]["input_ids"].shape[1]
    text += (
        f"\n## The shape of Qwen3-VL-2B\n\nRandom weights, {layers} layers, {str(dtype)[6:]}; one"
        f" image of {CPU_SHAPE.width} x {CPU_SHAPE.height} pixels, {tokens} tokens in all.\n\n"
    )
    text += ratio_table(measured(case, rounds))
    del case
    text += "\n## Table 4\n\n"
    if on_gpu:
        text += "Speedup of the first token: ours / published / ideal. Random weights, bfloat16.\n"
        for size in ("8B", "4B"):
            text += f"\n### Qwen3-VL-{size}\n\n{table_4(size, rounds)}"
    else:
        text += (
            "Not run: it needs a GPU. With one, the same command times the first token of"
            " Qwen3-VL-8B and -4B with random weights on a typical request of each benchmark,"
            " beside the published speedups (arXiv 2511.19676, table 4).\n"
        )
    out.write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
