"""How fast `collect` measures, beside the obvious way and beside the bare decoder.

    make bench-collect

All ratios are medians over pairs that were timed in turn, in one process, on the same encoded
samples. Encoding images and text is left out there: every way needs it. Memory and the work of one
and two processes are those of `collect` as it is, in processes of their own.

The obvious way is what the published code does: three passes of the whole model with its logits,
one sample at a time, hidden states collected, one span length per pass.
"""

from __future__ import annotations

import json
import os
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

from benchmarks.collect_work import CALIBRATION, DEMO, write_calibration
from benchmarks.random_model import VOCABULARY, long_rows, random_qwen3_vl, random_text_model
from interlace.measurements.cosines import measure_batch
from interlace.model import chat
from interlace.model.batches import batches
from interlace.model.open import open_model, open_processor
from interlace.model.states import forward
from interlace.params.measuring import Collect
from interlace.samples import rows as samples

PAIRS, CLOSE_PAIRS = 5, 9  # more where a few per cent decide
SPANS = (1, 2, 3)
HEAD = """# How fast `collect` measures

`make bench-collect` writes this page. Each ratio is a median over {close_pairs} pairs timed
in turn, {pairs} for the obvious way; all but those of one and two processes in one process, on the
same encoded samples, with one thread. The obvious way makes three passes with logits, one sample at
a time, one span length per pass; `collect` makes one pass without logits and measures every span on
all, vision and text tokens and the last one, with pooled states. The bare decoder runs the same
batches and measures nothing. One and two processes have a thread each and do all that `collect`
does, reading, encoding and writing included; their work counts from when the model is loaded until
the dataset is in place. Memory is the peak of a process that collects.
"""
GPU_HEAD = """
## On a GPU

Random weights in the shape of Qwen3-VL-8B's decoder, bfloat16, 8 prompts of 1,024 tokens a batch,
every span.
"""
Row = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A model and the batches to measure it on.

    Attributes:
        name: for the table.
        model: opened.
        batches: those that `collect` would make, padded.
        encoded: the same samples one by one.
        pad_token_id: of the tokenizer.
    """

    name: str
    model: Any
    batches: Sequence[chat.Inputs]
    encoded: Sequence[chat.Inputs] = ()
    pad_token_id: int = 0


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
    """One pass without the head: every span, all kinds of tokens, pooled states."""
    for batch in case.batches:
        measure_batch(case.model, batch, Collect())


def bare(case: Case) -> None:
    """The same batches through the decoder, nothing measured."""
    for batch in case.batches:
        with torch.inference_mode():
            forward(case.model, batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def timed(function: Callable[[Case], None], case: Case) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    function(case)
    return time.perf_counter() - begin


def compared(
    left: Callable[[Case], None],
    right: Callable[[Case], None],
    case: Case,
    what: str,
    count: int,
) -> tuple[float, float, float]:
    """Median seconds of two ways over interleaved pairs, and the median of the pairs' ratios."""
    for function in (left, right):
        function(case)  # warm-up
    pairs = []
    for number in tqdm(range(count), desc=f"{case.name}: {what}", unit="pair"):
        order = (left, right) if number % 2 else (right, left)
        taken = {function: timed(function, case) for function in order}
        pairs.append((taken[left], taken[right]))
    ratio = median(a / b for a, b in pairs)
    return median(a for a, _ in pairs), median(b for _, b in pairs), ratio


def case_of(name: str, model: Any, processor: Any, rows: Any, batch_tokens: int) -> Case:
    """Encode rows, and batch them as `collect` does."""
    encoded = [chat.encode_prompt(processor, row) for row in rows]
    pad = processor.tokenizer.pad_token_id
    groups = batches([len(row["input_ids"]) for row in encoded], batch_tokens)
    padded = [chat.collate([encoded[i] for i in group], pad_token_id=pad) for group in groups]
    return Case(name, model, padded, encoded, pad)


def demo_case(count: int) -> Case:
    """The demo model and its own calibration samples."""
    rows = islice(samples.iterate(CALIBRATION), count)
    model = open_model(DEMO, dtype="float32")
    return case_of("demo, 24 x 128", model, open_processor(DEMO), rows, 4096)


def random_case(folder: Path, count: int) -> Case:
    """Random weights, 28 layers of width 512, Qwen's vocabulary, 200 to 800 tokens a sample."""
    processor = random_qwen3_vl(folder)
    model = open_model(folder, dtype="float32")
    return case_of("random, 28 x 512", model, processor, long_rows(count), 2048)


def speed(case: Case) -> Iterator[Row]:
    """Rows of the table: against the obvious way, and against the bare decoder."""
    for what, pair, count, target in (
        ("the obvious way / collect", (obvious, ours), PAIRS, "at least 4"),
        ("collect / the bare decoder", (ours, bare), CLOSE_PAIRS, "at most 1.10"),
    ):
        left, right, ratio = compared(*pair, case, what, count)
        yield case.name, what, f"{left:.2f} s / {right:.2f} s", f"{ratio:.2f}", target


def work(folder: Path, processes: int) -> dict[str, float]:
    """What `benchmarks.collect_work` says, run in so many processes with a thread each."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    program = [*(launch if processes > 1 else []), "-m", "benchmarks.collect_work", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *program], env=environment, capture_output=True, text=True, check=True
    )
    said: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return said


def memory(few: int, many: int) -> Row:
    """Peak memory of one process with few and with many samples."""
    peaks = []
    for count in tqdm((few, many), desc="memory", unit="run"):
        with tempfile.TemporaryDirectory() as folder:
            write_calibration(Path(folder), count)
            peaks.append(work(Path(folder), 1)["peak"])
    small, large = peaks
    said = f"{large:.0f} MiB / {small:.0f} MiB"
    return (
        "demo, 24 x 128",
        f"memory, {many:,} / {few:,} samples",
        said,
        f"{large / small:.2f}",
        "flat",
    )


def scaling(count: int) -> Iterator[Row]:
    """One process over two: the work alone, and with loading Python and the model."""
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        write_calibration(Path(folder), count)
        for number in tqdm(range(CLOSE_PAIRS), desc="one and two processes", unit="pair"):
            order = (1, 2) if number % 2 else (2, 1)
            pairs.append({processes: work(Path(folder), processes) for processes in order})
    for what, parts, target in (
        ("one process / two, work", ("work",), "at least 1.6"),
        ("one process / two, with loading", ("work", "loading"), ""),
    ):
        times = [
            {n: sum(said[part] for part in parts) for n, said in pair.items()} for pair in pairs
        ]
        one, two = (median(pair[n] for pair in times) for n in (1, 2))
        ratio = median(pair[1] / pair[2] for pair in times)
        name = f"demo, {count:,} samples"
        yield name, what, f"{one:.1f} s / {two:.1f} s", f"{ratio:.2f}", target


def gpu_case(device: str = "cuda", batch_size: int = 8, tokens: int = 1024, **sizes: int) -> Case:
    """Qwen3-VL-8B's decoder with random weights, made on the device; no file is read."""
    model = random_text_model(device, **sizes)
    drawn = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 1000, (batch_size, tokens), generator=drawn).to(device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return Case("random, 36 x 4,096", model, [batch] * 4)


def on_gpu() -> str:
    """The part of the page about a GPU."""
    if not torch.cuda.is_available():
        return f"{GPU_HEAD}\nSkipped: this machine has no CUDA device.\n"
    case = gpu_case()
    torch.cuda.reset_peak_memory_stats()
    mine, alone, ratio = compared(ours, bare, case, "collect / the bare decoder", CLOSE_PAIRS)
    peak = torch.cuda.max_memory_allocated() / 2**30
    tokens = sum(batch["input_ids"].numel() for batch in case.batches)
    rows = [
        ("tokens per second of `collect`'s pass", f"{tokens / mine:,.0f}"),
        ("tokens per second of the bare decoder", f"{tokens / alone:,.0f}"),
        ("share of the bare decoder's speed", f"{1 / ratio:.0%}"),
        ("peak memory, weights included", f"{peak:.1f} GiB"),
    ]
    name = torch.cuda.get_device_name()
    return f"{GPU_HEAD}\n{name}.\n\n| what | value |\n|---|---:|\n" + lines(rows)


def lines(rows: Sequence[Row]) -> str:
    """Rows of a Markdown table."""
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


@click.command()
@click.option("--small", default=4, show_default=True, help="Samples of the random model.")
@click.option("--large", default=128, show_default=True, help="Samples of the demo model.")
@click.option("--many", default=5000, show_default=True, help="Samples that memory is flat up to.")
@click.option("--shared", default=1024, show_default=True, help="Samples of one and two processes.")
def main(small: int, large: int, many: int, shared: int) -> None:
    """Measure, print and write docs/bench-collect.md."""
    torch.set_num_threads(1)
    rows = list(speed(demo_case(large)))
    with tempfile.TemporaryDirectory() as folder:
        rows += speed(random_case(Path(folder), small))
    rows += [memory(200, many), *scaling(shared)]
    machine = f"torch {torch.__version__}, {os.cpu_count()} cores, {VOCABULARY:,} tokens, float32"
    table = "| model | what | seconds or memory | ratio | target |\n|---|---|---|---:|---|\n"
    head = HEAD.format(pairs=PAIRS, close_pairs=CLOSE_PAIRS)
    text = f"{head}\n{machine}.\n\n{table}{lines(rows)}{on_gpu()}"
    Path("docs/bench-collect.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
