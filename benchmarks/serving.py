"""Compare served speedups with those of FLOPs, on the demo's model and on a larger random one.

    make bench-serving VLLM=".scratch/vllm/bin/vllm serve --dtype float32"

A server of the dense and one of the pruned model (without every fourth layer) are started by the
command, are up at the same time, and answer the same requests in turn, as in the stage `ttft`. The
demo's tiny layers take less time than the server's work around them; those of the larger model do
not, on prompts of 200 tokens. On a CPU with shorter ones, reading the head's 151,936 rows for one
token would be a fifth of the time, and a thousandth of the FLOPs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq

import interlace
from benchmarks.export import quarter
from benchmarks.random_model import DEMO, long_rows, random_qwen3_vl
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.model.families import text_config
from interlace.params.served import Vllm
from interlace.params.timing import Ttft
from interlace.speed.flops import ideals
from interlace.speed.load import Load
from interlace.speed.requests import drawn_requests
from interlace.speed.served import Rounds, ServedTimes, time_servers
from interlace.speed.served_summary import served_metrics
from interlace.system.outputs import whole

ROWS = Path("data/demo/train.parquet")
FOLDER = Path(".scratch/bench-serving")
TARGET = 0.95  # least speedup over ideal for prefill
REQUESTS = 6  # rows of the demo, with one image each
WIDTH, LAYERS = 512, 28  # of the larger decoder
PROMPT = (190, 210)  # tokens of its prompts
PREFILL_SECONDS = 240.0  # of requests that an unsure load of the target may take for more rounds
DECODE_SECONDS = 45.0  # of requests that any other may take
UNSURE_ROUNDS = 8  # times the rounds asked for, at most
HEAD = """# Speed of served models

`make bench-serving` writes this page, on a CPU with {cores} cores. Two servers are started by
`{command}`{version}: one of the dense model, one without every fourth layer. In each of at least
{rounds} rounds one server answers requests while the other is suspended, and then the other answers
the same. A load whose intervals are wide gets more rounds, up to {times} times as many, or until
its requests have taken {prefill:.0f} seconds, {decode:.0f} if they are decode-bound. Every request
has an image and is like no other, so none is answered from a cache. Requests at once:
{concurrency}; a round sends each of {requests} rows once, or as many as are open at once.
Prefill-bound answers have one token, decode-bound ones {new_tokens}. Speedups are medians over
rounds with 95% bootstrap intervals, "unsure" where the interval is wider than a tenth of it. The
ideal is the ratio of FLOPs: vision tower, decoder and head of a prompt, and, for tokens a second of
long answers, of further tokens. The target is {target:.2f} of ideal for prefill-bound requests.

"Besides the model" is the time per request that would be the same for both models if the rest
followed the ideal: HTTP, decoding the image, tokenising, scheduling, and this client. Dropping
layers cannot shorten it.
"""
HEADINGS = [
    *("answer, tokens", "requests at once", "rounds"),
    *("first token, dense, ms", "pruned, ms", "speedup"),
    *("of ideal", "tokens/s, dense", "pruned", "speedup", "ideal", "of ideal"),
    "besides the model, ms a request",
]


@dataclass(frozen=True)
class Case:
    """A model to serve.

    Attributes:
        name: for the heading.
        dense: its checkpoint.
        pruned: that without every fourth layer.
        new_tokens: of the decode-bound answers.
        rounds: timed.
        rows: requests are drawn of these.
    """

    name: str
    dense: Path
    pruned: Path
    new_tokens: int
    rounds: int
    rows: Sequence[Mapping[str, Any]]


def demo_case(rounds: int) -> Case:
    """Prune the demo's model."""
    rows = [row for row in pq.read_table(ROWS).slice(0, 500).to_pylist() if row["images"]]
    return Case("The demo's model", DEMO, _pruned(DEMO, FOLDER / "demo"), 32, rounds, rows)


def random_case(rounds: int, width: int, layers: int) -> Case:
    """Save a larger model of random weights, and prune it."""
    dense = FOLDER / f"random-{width}-{layers}"
    if not (dense / "config.json").is_file():
        with whole(dense) as partial:
            random_qwen3_vl(partial, layers, width)
    name = f"A random Qwen3-VL, {layers} layers of width {width}"
    pruned = _pruned(dense, FOLDER / f"{dense.name}-pruned")
    rows = long_rows(REQUESTS, shortest=PROMPT[0], longest=PROMPT[1])
    return Case(name, dense, pruned, 16, rounds, rows)


def _pruned(dense: Path, out: Path) -> Path:
    """Export a model without every fourth layer."""
    plan = quarter(text_config(Checkpoint(dense).config)["num_hidden_layers"])
    interlace.export(dense, plan, out, overwrite=True)
    return out


def flop_ideals(case: Case) -> dict[str, Any]:
    """Count the FLOPs of the requests in both models; return the speedups that they promise.

    The mean length of the prompts is beside them, as `prompt_tokens`.
    """
    import torch

    from interlace.speed.clock import count_flops

    requests = drawn_requests(Checkpoint(case.dense).open_processor(), case.rows, REQUESTS, seed=0)
    works = []
    for folder in (case.dense, case.pruned):
        model = Checkpoint(folder).open_model(dtype="float32")
        with torch.inference_mode():
            works.append([count_flops(model, request.batch(1), 2) for request in requests])
        del model
    lengths = [len(request.encoded["input_ids"]) for request in requests]
    return ideals(list(zip(*works, strict=True))) | {"prompt_tokens": sum(lengths) / len(lengths)}


def rounds_for_sureness(params: Ttft, load: Load, rounds: Rounds) -> int:
    """Count the rounds to add to those of a load: two, while it is unsure and has time."""
    if len(rounds) >= UNSURE_ROUNDS * params.repeats:
        return 0
    times = [turn.seconds_per_token * turn.tokens for pair in rounds for turn in pair]
    limit = PREFILL_SECONDS if load.new_tokens == 1 else DECODE_SECONDS
    if sum(times) * max(params.requests, load.concurrency) >= limit:
        return 0
    metrics = served_metrics(ServedTimes({}, {load: rounds}), {"ttft_ideal": 1.0}, params, 0)
    speedups = [metrics["served"][load.name][f"{key}_speedup"] for key in ("ttft", "throughput")]
    return 2 if None in speedups else 0


def measure(case: Case, command: str, concurrency: Sequence[int]) -> dict[str, Any]:
    """Time both servers of a case; return what the stage `ttft` writes of them, with the ideals."""
    params = Ttft(
        engine="vllm",
        vllm=Vllm(command=command),
        concurrency=tuple(concurrency),
        requests=REQUESTS,
        new_tokens=case.new_tokens,
        repeats=case.rounds,
        warmup=1,
    )
    logs = FOLDER / "logs" / case.pruned.name
    pair = (Checkpoint(case.dense), Checkpoint(case.pruned))
    more = partial(rounds_for_sureness, params)
    times = time_servers(*pair, case.rows, params=params, seed=0, logs=logs, more_rounds=more)
    assert times is not None
    promised = flop_ideals(case)
    return promised | served_metrics(times, promised, params, 0)


def table(metrics: Mapping[str, Any]) -> str:
    """Format the loads of a case."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|" + "--:|" * len(HEADINGS)]
    for load in metrics["served"].values():
        times = [load["ttft_dense_ms"], load["ttft_tuned_ms"]]
        rates = [load[f"throughput_{name}_tokens_per_s"] for name in ("dense", "tuned")]
        cells = [str(load[name]) for name in ("new_tokens", "concurrency", "rounds")]
        cells += [*(f"{time:,.1f}" for time in times), *_ratio(load, "ttft")]
        cells += [f"{rate:,.1f}" for rate in rates]
        speedup, share = _ratio(load, "throughput")
        cells += [speedup, f"{load['throughput_ideal']:.3f}", share, _besides(load)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ratio(load: Mapping[str, Any], key: str) -> tuple[str, str]:
    """Return a speedup with its interval, and its share of the ideal."""
    speedup, low, high = (load[f"{key}_speedup{end}"] for end in ("", "_low", "_high"))
    name = "unsure" if speedup is None else f"{speedup:.3f}"
    share = "\u2013" if speedup is None else f"{speedup / load[f'{key}_ideal']:.3f}"
    return f"{name} [{low:.3f}, {high:.3f}]", share


def _besides(load: Mapping[str, Any]) -> str:
    """Return the milliseconds of a request that do not follow the ideal, if they are sure."""
    if load["throughput_speedup"] is None or load["new_tokens"] > 1:
        return "\u2013"
    dense, tuned = (1000 / load[f"throughput_{name}_tokens_per_s"] for name in ("dense", "tuned"))
    ideal = load["throughput_ideal"]
    return f"{max(0.0, (ideal * tuned - dense) / (ideal - 1)):.1f} of {dense:.1f}"


@click.command()
@click.option("--command", required=True, help="Command that serves a checkpoint.")
@click.option("--rounds", default=8, show_default=True, help="Timed rounds of the demo.")
@click.option("--large-rounds", default=4, show_default=True, help="Those of the larger model.")
@click.option("--concurrency", multiple=True, type=int, default=(1, 16, 64), show_default=True)
@click.option("--width", default=WIDTH, show_default=True, help="Of the larger decoder.")
@click.option("--layers", default=LAYERS, show_default=True, help="Of the larger decoder.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/bench-serving.md"))
def main(
    command: str,
    rounds: int,
    large_rounds: int,
    concurrency: tuple[int, ...],
    width: int,
    layers: int,
    out: Path,
) -> None:
    """Time both cases and write the page."""
    cases = [demo_case(rounds), random_case(large_rounds, width, layers)]
    sections, metrics = [], {}
    for case in cases:
        metrics = measure(case, command, concurrency)
        sections.append(
            f"\n## {case.name}\n\nPrompts have {metrics['prompt_tokens']:.0f} tokens on average."
            f" Ideal: {metrics['ttft_ideal']:.3f} to the first token,"
            f" {metrics['decode_ideal']:.3f} for a further one.\n\n{table(metrics)}"
        )
        click.echo(sections[-1])
    version = metrics.get("served_version")
    head = HEAD.format(
        cores=len(os.sched_getaffinity(0)),
        command=metrics["served_command"],
        version=f" (version {version})" if version else "",
        rounds=" and ".join(str(case.rounds) for case in cases),
        times=UNSURE_ROUNDS,
        prefill=PREFILL_SECONDS,
        decode=DECODE_SECONDS,
        concurrency=", ".join(map(str, concurrency)),
        requests=REQUESTS,
        new_tokens=" and ".join(str(case.new_tokens) for case in cases),
        target=TARGET,
    )
    with whole(out) as partial:
        partial.write_text(head + "".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
