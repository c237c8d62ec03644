"""Time `collect` against the obvious way and against the bare decoder.

    make bench-collect

All ratios are medians over pairs timed in turn, in one process, on the same encoded samples.
Encoding images and text is not timed: all ways need it. Memory and the work of one and two
processes are measured on the whole of `collect`, in separate processes.

The obvious way is what the published code does: three passes of the whole model with its logits,
one sample at a time, one span length per pass, all hidden states in memory.
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
from benchmarks.random_model import VOCABULARY, long_rows, random_qwen3_vl
from interlace.measurements.cosines import measure_batch
from interlace.model import chat
from interlace.model.batches import batches
from interlace.model.open import open_model, open_processor
from interlace.model.states import forward
from interlace.params.measuring import Collect
from interlace.samples import rows as samples

PAIRS, CLOSE_PAIRS = 5, 9  # more where a few per cent decide
SPANS = (1, 2, 3)
HEAD = """# Speed of `collect`

`make bench-collect` writes this page. Each ratio is a median over {close_pairs} pairs timed in
turn, {pairs} for the obvious way. One process with one thread times all ways on the same encoded
samples. The obvious way makes three passes with logits, one sample at a time, one span length per
pass. `collect` makes one pass without logits; it measures all spans on all tokens, vision tokens,
text tokens and the last token, and pools hidden states. The bare decoder runs the same batches and
measures nothing.

The rows of one and two processes run the whole of `collect`, reading, encoding and writing
included, with one thread per process. Their work is timed from the loaded model to the finished
dataset. Memory is the peak of a process that collects.
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
    """Measure as the published code does: three passes, batch 1, logits, all hidden states."""
    for row in case.encoded:
        inputs = chat.collate([row], pad_token_id=case.pad_token_id)
        inputs.pop("labels", None)
        for span in SPANS:
            with torch.no_grad():
                states = case.model(**inputs, output_hidden_states=True).hidden_states
            for first in range(len(states) - span - 1):
                input_state, output_state = (
                    states[first][0].float(),
                    states[first + span][0].float(),
                )
                torch.nn.functional.cosine_similarity(
                    input_state, output_state, dim=-1
                ).mean().item()


def one_pass(case: Case) -> None:
    """Measure all spans in one pass without the head, with pooled states."""
    for batch in case.batches:
        measure_batch(case.model, batch, Collect())


def bare_decoder(case: Case) -> None:
    """Run the batches through the decoder and measure nothing."""
    for batch in case.batches:
        with torch.inference_mode():
            forward(case.model, batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def seconds_of(function: Callable[[Case], None], case: Case) -> float:
    """Time one call, in seconds."""
    begin = time.perf_counter()
    function(case)
    return time.perf_counter() - begin


def compare(
    first_way: Callable[[Case], None],
    second_way: Callable[[Case], None],
    case: Case,
    label: str,
    count: int,
) -> tuple[float, float, float]:
    """Return the median seconds of two ways over interleaved pairs, and the median ratio."""
    for function in (first_way, second_way):
        function(case)  # warm-up
    pairs = []
    for number in tqdm(range(count), desc=f"{case.name}: {label}", unit="pair"):
        order = (first_way, second_way) if number % 2 else (second_way, first_way)
        seconds = {function: seconds_of(function, case) for function in order}
        pairs.append((seconds[first_way], seconds[second_way]))
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
    """Open the demo model on its own calibration samples."""
    rows = islice(samples.iterate(CALIBRATION), count)
    model = open_model(DEMO, dtype="float32")
    return case_of("demo, 24 x 128", model, open_processor(DEMO), rows, 4096)


def random_case(folder: Path, count: int) -> Case:
    """Build a random model, 28 layers of width 512; 200 to 800 tokens per sample."""
    processor = random_qwen3_vl(folder)
    model = open_model(folder, dtype="float32")
    return case_of("random, 28 x 512", model, processor, long_rows(count), 2048)


def speed(case: Case) -> Iterator[Row]:
    """Yield the table's rows on speed."""
    for label, pair, count, target in (
        ("the obvious way / collect", (obvious, one_pass), PAIRS, "at least 4"),
        ("collect / the bare decoder", (one_pass, bare_decoder), CLOSE_PAIRS, "at most 1.10"),
    ):
        first_way, second_way, ratio = compare(*pair, case, label, count)
        yield case.name, label, f"{first_way:.2f} s / {second_way:.2f} s", f"{ratio:.2f}", target


def work(folder: Path, processes: int) -> dict[str, float]:
    """Run `benchmarks.collect_work` in some processes of one thread; return its figures."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    program = [*(launch if processes > 1 else []), "-m", "benchmarks.collect_work", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *program],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def memory(few: int, many: int) -> Row:
    """Compare the peak memory of one process with few and with many samples."""
    peaks = []
    for count in tqdm((few, many), desc="memory", unit="run"):
        with tempfile.TemporaryDirectory() as folder:
            write_calibration(Path(folder), count)
            peaks.append(work(Path(folder), 1)["peak"])
    small, large = peaks
    figures = f"{large:.0f} MiB / {small:.0f} MiB"
    return (
        "demo, 24 x 128",
        f"memory, {many:,} / {few:,} samples",
        figures,
        f"{large / small:.2f}",
        "flat",
    )


def scaling(count: int) -> Iterator[Row]:
    """Yield the table's rows on one process over two, without and with loading."""
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        write_calibration(Path(folder), count)
        for number in tqdm(range(CLOSE_PAIRS), desc="one and two processes", unit="pair"):
            order = (1, 2) if number % 2 else (2, 1)
            pairs.append({processes: work(Path(folder), processes) for processes in order})
    for label, phases, target in (
        ("one process / two, work", ("work",), "at least 1.6"),
        ("one process / two, with loading", ("work", "loading"), ""),
    ):
        times = [
            {n: sum(figures[phase] for phase in phases) for n, figures in pair.items()}
            for pair in pairs
        ]
        one, two = (median(pair[n] for pair in times) for n in (1, 2))
        ratio = median(pair[1] / pair[2] for pair in times)
        name = f"demo, {count:,} samples"
        yield name, label, f"{one:.1f} s / {two:.1f} s", f"{ratio:.2f}", target


def table_lines(rows: Sequence[Row]) -> str:
    """Format rows of a Markdown table."""
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


@click.command()
@click.option("--small", default=4, show_default=True, help="Samples of the random model.")
@click.option("--large", default=128, show_default=True, help="Samples of the demo model.")
@click.option("--many", default=5000, show_default=True, help="Samples of the larger memory run.")
@click.option(
    "--shared", default=1024, show_default=True, help="Samples for one and two processes."
)
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
    text = f"{head}\n{machine}.\n\n{table}{table_lines(rows)}"
    Path("docs/bench-collect.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
