"""How fast `collect` measures, beside the obvious way and beside the bare decoder.

    make bench-collect

All ratios are of medians over pairs that were timed in turn, in one process, on the same inputs.
Encoding images and text is left out on all sides: every way needs it. Memory is the peak resident
size of a process of its own.

The obvious way is what the published code does: three passes of the whole model with its logits,
one sample at a time, hidden states collected, one span length per pass.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from tqdm import tqdm

from benchmarks.random_model import long_rows, random_qwen3_vl
from interlace import chat, samples
from interlace.hidden_states import batches, collect, forward, measure_batch
from interlace.params import Collect
from interlace.sources import open_model

DEMO, CALIBRATION = Path("data/demo/model"), Path("data/calibration")
PAIRS = 5
HEAD = """# How fast `collect` measures

`make bench-collect` writes this page. Ratios are of medians over five pairs timed in turn in one
process on the same encoded samples. The obvious way makes three passes with logits, one sample at a
time, one span length per pass; `collect` makes one pass and measures every span, on all, vision and
text tokens, with pooled states. Memory is the peak of a process of its own; one and two processes
are the whole stage, loading the model included, with a thread each.
"""
SPANS = (1, 2, 3)


@dataclass(frozen=True)
class Case:
    """A model and samples to measure it on.

    Attributes:
        name: for the table.
        model: opened, float32.
        encoded: one entry per sample.
        batch_tokens: padded tokens per batch.
        pad_token_id: of the tokenizer.
    """

    name: str
    model: Any
    encoded: Sequence[chat.Inputs]
    batch_tokens: int
    pad_token_id: int

    def batches(self) -> Iterator[chat.Inputs]:
        """The batches that `collect` would make."""
        for group in batches([len(row["input_ids"]) for row in self.encoded], self.batch_tokens):
            yield chat.collate([self.encoded[i] for i in group], pad_token_id=self.pad_token_id)


def obvious(case: Case) -> None:
    """Three passes, batch 1, logits included, all hidden states kept."""
    for row in case.encoded:
        inputs = chat.collate([row], pad_token_id=case.pad_token_id)
        inputs.pop("labels", None)
        for span in SPANS:
            with torch.no_grad():
                states = case.model(**inputs, output_hidden_states=True).hidden_states
            for first in range(len(states) - span - 1):
                before, after = states[first][0].float(), states[first + span][0].float()
                torch.nn.functional.cosine_similarity(before, after, dim=-1).mean().item()


def ours(case: Case) -> None:
    """One pass without the head: every span, three kinds of tokens, pooled states."""
    for batch in case.batches():
        measure_batch(case.model, batch, "residual", None)


def bare(case: Case) -> None:
    """The same batches through the decoder, nothing measured."""
    for batch in case.batches():
        with torch.inference_mode():
            forward(case.model, batch)


def ratio(
    left: Callable[[Case], None], right: Callable[[Case], None], case: Case, what: str
) -> tuple[float, float, float]:
    """Median seconds of two ways over interleaved pairs, and the ratio of the medians."""
    left(case), right(case)  # warm-up
    times: dict[int, list[float]] = {0: [], 1: []}
    for number in tqdm(range(PAIRS), desc=f"{case.name}: {what}", unit="pair"):
        for side in (0, 1) if number % 2 else (1, 0):
            begin = time.perf_counter()
            (left, right)[side](case)
            times[side].append(time.perf_counter() - begin)
    a, b = median(times[0]), median(times[1])
    return a, b, a / b


def demo_case(count: int) -> Case:
    """The demo model and its own calibration samples."""
    processor = chat.open_processor(DEMO)
    rows = islice(samples.iterate(CALIBRATION), count)
    encoded = [chat.encode_prompt(processor, row) for row in rows]
    model = open_model(DEMO, dtype="float32")
    return Case("demo, 24 x 128", model, encoded, 4096, processor.tokenizer.pad_token_id)


def random_case(folder: Path, count: int) -> Case:
    """Random weights, 28 layers of width 512, Qwen's vocabulary, 200 to 800 tokens a sample."""
    processor = random_qwen3_vl(folder)
    encoded = [chat.encode_prompt(processor, row) for row in long_rows(count)]
    model = open_model(folder, dtype="float32")
    return Case("random, 28 x 512", model, encoded, 2048, processor.tokenizer.pad_token_id)


def peak_memory(count: int) -> float:
    """Peak resident MiB of a process that collects so many samples of the demo."""
    code = f"from benchmarks.collect import collect_demo; collect_demo({count})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def collect_demo(count: int) -> None:
    """Collect calibration samples, repeated until there are enough, and say the peak memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = list(samples.iterate(CALIBRATION))
        many = (rows[i % len(rows)] | {"sample_id": f"{i:016x}"} for i in range(count))
        samples.write_rows(many, folder / "calibration")
        collect(
            open_model(DEMO, dtype="float32"),
            chat.open_processor(DEMO),
            [folder / "calibration"],
            folder / "hidden_states",
            params=Collect(batch_tokens=4096, pooled="all"),
            scratch=folder / "scratch",
            provenance={},
        )
    click.echo(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def seconds_with(processes: int, folder: Path) -> float:
    """Seconds of the stage `collect` on the demo, a thread per process, loading the model included.

    Args:
        processes: how many.
        folder: a workspace; see `workspace`.
    """
    launch = ["-m"] if processes == 1 else ["-m", "torch.distributed.run"]
    if processes > 1:
        launch += ["--standalone", "--nproc-per-node", str(processes), "-m"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    environment.pop("DVC_STAGE", None)
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, *launch, "stages.collect", "--params", "params.yaml"],
        cwd=folder, env=environment, capture_output=True, check=True,
    )  # fmt: skip
    return time.perf_counter() - begin


def workspace(folder: Path) -> Path:
    """Lay out what the stage reads, apart from the repository's own outputs."""
    (folder / "artifacts").mkdir()
    for name in ("params.yaml", "data", "artifacts/sources.json"):
        (folder / name).symlink_to(Path(name).absolute())
    return folder


def processes_ratio() -> tuple[float, float, float]:
    """Median seconds with one and with two processes, and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = workspace(Path(name))
        times: dict[int, list[float]] = {1: [], 2: []}
        for _ in tqdm(range(PAIRS), desc="one and two processes", unit="pair"):
            for processes, taken in times.items():
                taken.append(seconds_with(processes, folder))
    one, two = median(times[1]), median(times[2])
    return one, two, one / two


def rows_of_table(small: int, large: int) -> Iterator[tuple[str, str, str, str, str]]:
    """What is measured: model, comparison, both values, ratio, target."""
    with tempfile.TemporaryDirectory() as name:
        for case in (demo_case(large), random_case(Path(name), small)):
            for what, function, target in (
                ("the obvious way / collect", obvious, "at least 4"),
                ("collect / the bare decoder", bare, "at most 1.10"),
            ):
                pair = (function, ours) if function is obvious else (ours, function)
                left, right, found = ratio(*pair, case, what)
                yield case.name, what, f"{left:.2f} s / {right:.2f} s", f"{found:.2f}", target
    few, many = peak_memory(200), peak_memory(5000)
    memory = f"{many:.0f} MiB / {few:.0f} MiB"
    yield "demo, 24 x 128", "memory, 5,000 / 200 samples", memory, f"{many / few:.2f}", "flat"
    one, two, found = processes_ratio()
    seconds = f"{one:.1f} s / {two:.1f} s"
    yield "demo, 24 x 128", "one process / two", seconds, f"{found:.2f}", "at least 1.6"


@click.command()
@click.option("--small", default=6, show_default=True, help="Samples of the random model.")
@click.option("--large", default=128, show_default=True, help="Samples of the demo model.")
def main(small: int, large: int) -> None:
    """Measure, print and write docs/bench-collect.md."""
    found = list(rows_of_table(small, large))
    lines = ["| model | what | seconds or memory | ratio | target |", "|---|---|---|---:|---|"]
    lines += [f"| {' | '.join(row)} |" for row in found]
    machine = f"torch {torch.__version__}, {os.cpu_count()} cores, float32"
    text = f"{HEAD}\n{machine}.\n\n" + "\n".join(lines) + "\n"
    Path("docs/bench-collect.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
