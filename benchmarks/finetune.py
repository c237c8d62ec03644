"""Time an update of `finetune` and measure its memory, against the plain way.

    make bench-finetune

The plain way is code without any optimisation: all parameters require gradients, rows are padded to
the longest, all positions have logits. Both ways reach the same loss on the same rows, and share
the AdamW of the planned layers. Ratios are medians over pairs run in turn in one process. Memory is
the peak of a separate process, less that of the loaded model.
"""

from __future__ import annotations

import json
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
from torch.nn import functional
from tqdm import tqdm

from benchmarks.peak_memory import status_bytes
from benchmarks.random_model import long_rows, random_qwen3_vl
from interlace.healing.finetune import freeze_all_but
from interlace.model import chat
from interlace.model.answer_loss import AnswerLoss
from interlace.model.attention import takes_one_row
from interlace.model.bypass import bypass
from interlace.model.chat import IGNORED
from interlace.model.open import open_model, open_processor
from interlace.params.healing import Finetune
from interlace.samples import rows as samples
from interlace.training.checkpointing import graph_layers, set_checkpointing
from interlace.training.engines import Plain
from interlace.training.packing import mrope_positions, pack

DEMO, TRAIN, PAGE = Path("data/demo/model"), Path("data/train"), Path("docs/bench-finetune.md")
PAIRS = 5
PARAMS = Finetune(zero_stage=0)
HEAD = """# Speed and memory of `finetune`

`make bench-finetune` writes this page. The plain way computes gradients of all parameters, pads
rows to the longest and computes logits at all positions. `finetune` computes gradients of the tuned
layers, packs rows and computes logits at answer tokens. Both have the same loss on the same rows.
Models have a quarter of their layers removed and as many tuned. Ratios are medians over five pairs
run in turn in one process. Memory is the peak of a separate process, less that of the loaded model.

"fast" is one pass and "half" two passes of half the rows, both without gradient checkpointing.
"small" is passes of two rows with gradient checkpointing. Targets: at most 0.6 of the time with no
more memory, and at most 0.5 of the memory in no more time.
"""


@dataclass(frozen=True)
class Case:
    """A pruned model and the rows of an update.

    Attributes:
        name: for the table.
        model: opened.
        examples: encoded rows.
        tuned: positions of the tuned layers.
        engine: the optimizer of these, which all ways share; its rate is 0, so no weight moves.
    """

    name: str
    model: Any
    examples: Sequence[chat.Inputs]
    tuned: list[int]
    engine: Plain


def case_of(name: str, model: Any, examples: Sequence[chat.Inputs]) -> Case:
    """Remove a quarter of a model's layers, and prepare to tune as many."""
    tuned = remove_triplet_middles(model)
    freeze_all_but(model, tuned)
    return Case(name, model, examples, tuned, Plain(AnswerLoss(model), PARAMS))


Way = Callable[[Case], float]  # makes an update, returns its loss


def remove_triplet_middles(model: Any) -> list[int]:
    """Remove a quarter of the layers, middles of triplets; return the positions to tune."""
    layers = len(model.get_decoder().layers)
    drop = [3 * number + 4 for number in range(layers // 4)]
    bypass(model, drop)
    keep = [layer for layer in range(layers) if layer not in drop]
    return [keep.index(layer - 1) for layer in drop]


def demo_case(rows: int) -> Case:
    """Open the demo's model and training rows."""
    processor = open_processor(DEMO)
    encoded = [chat.encode_training(processor, r) for r in islice(samples.iterate(TRAIN), rows)]
    model = open_model(DEMO, dtype="float32").train()
    return case_of(f"demo, 24 x 128, {rows} rows", model, encoded)


def random_case(rows: int, layers: int = 28, width: int = 512) -> Case:
    """Build a random model; 200 to 800 tokens per row, a quarter of them the answer."""
    with tempfile.TemporaryDirectory() as name:
        processor = random_qwen3_vl(Path(name), layers, width)
        model = open_model(Path(name), dtype="float32").train()
    encoded = [chat.encode_training(processor, with_answer(row)) for row in long_rows(rows)]
    return case_of(f"random, {layers} x {width}, {rows} rows", model, encoded)


def with_answer(row: dict[str, Any]) -> dict[str, Any]:
    """Make the last quarter of a row's words its answer."""
    words = row["texts"][0]["user"].split(" ")
    cut = 3 * len(words) // 4
    text = {"user": " ".join(words[:cut]), "assistant": " ".join(words[cut:])}
    return row | {"texts": [text]}


def plain(case: Case) -> float:
    """Update with gradients of all parameters, logits at all positions and padded rows."""
    model = case.model
    freeze_all_but(model, case.tuned)
    set_checkpointing(graph_layers(model), False)
    model.requires_grad_(True)
    batch = on_device(case, chat.collate(case.examples, pad_token_id=0))
    labels = batch.pop("labels")[:, 1:]
    logits = model(**batch, use_cache=False).logits[:, :-1]
    loss = functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
    case.engine.backward(loss / (labels != IGNORED).sum(), last=True)
    case.engine.step(0.0)
    model.zero_grad()
    return loss.item() / int((labels != IGNORED).sum())


def interlace_update(case: Case, *, micro: int, small: bool) -> float:
    """Update as `finetune` does, in passes of `micro` rows."""
    freeze_all_but(case.model, case.tuned)
    set_checkpointing(graph_layers(case.model), small)
    answers = sum(int((e["labels"][1:] != IGNORED).sum()) for e in case.examples)
    total = 0.0
    for begin in range(0, len(case.examples), micro):
        rows = case.examples[begin : begin + micro]
        batch = on_device(
            case,
            pack(
                rows,
                lambda e: mrope_positions(case.model.base_model, e),
                pad_token_id=0,
                one_row=takes_one_row(case.model.config._attn_implementation),
            ),
        )
        loss = case.engine.loss(batch, batch.pop("labels"))
        case.engine.backward(loss / answers, last=begin + micro >= len(case.examples))
        total += loss.item()
    case.engine.step(0.0)
    return total / answers


def fast(case: Case) -> float:
    """Update in one pass, without gradient checkpointing."""
    return interlace_update(case, micro=len(case.examples), small=False)


def half(case: Case) -> float:
    """Update in two passes, without gradient checkpointing."""
    return interlace_update(case, micro=-(-len(case.examples) // 2), small=False)


def small(case: Case) -> float:
    """Update in passes of two rows, with gradient checkpointing."""
    return interlace_update(case, micro=2, small=True)


WAYS: dict[str, Way] = {"plain": plain, "fast": fast, "half": half, "small": small}
CASES = {"demo": demo_case, "random": random_case}


def on_device(case: Case, batch: chat.Inputs) -> chat.Inputs:
    """Move a batch to the model's device."""
    device = next(case.model.parameters()).device
    return {name: value.to(device) for name, value in batch.items()}


def seconds(way: Way, case: Case) -> tuple[float, float]:
    """Return the seconds of an update, and its loss."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = time.perf_counter()
    loss = way(case)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin, loss


def time_ways(case: Case, pairs: int) -> Iterator[tuple[str, float, float]]:
    """Yield median seconds of each way, and its median ratio to the plain way.

    Raises:
        AssertionError: the ways do not have the same loss.
    """
    losses = {name: seconds(way, case)[1] for name, way in WAYS.items()}  # and warm up
    exact = next(case.model.parameters()).dtype == torch.float32
    if any(abs(loss / losses["plain"] - 1) > (1e-4 if exact else 2e-2) for loss in losses.values()):
        raise AssertionError(f"{case.name}: the losses differ: {losses}")
    elapsed: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in tqdm(range(pairs), desc=case.name, unit="round"):
        for name, way in WAYS.items():
            elapsed[name].append(seconds(way, case)[0])
    for name, times in elapsed.items():
        ratios = [
            time_of_way / time_of_plain
            for time_of_way, time_of_plain in zip(times, elapsed["plain"], strict=True)
        ]
        yield name, median(times), median(ratios)


def peak(case: str, way: str, rows: int) -> float:
    """Measure the peak MiB of an update in a separate process, less the model's."""
    code = f"from benchmarks.finetune import print_peak; print_peak({case!r}, {way!r}, {rows})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def print_peak(case: str, way: str, rows: int) -> None:
    """Make an update and print its peak memory, in MiB."""
    model_case = CASES[case](rows)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    model_bytes = status_bytes("VmRSS")
    WAYS[way](model_case)
    click.echo((status_bytes("VmHWM") - model_bytes) / 2**20)


def table(kinds: dict[str, int], pairs: int) -> Iterator[str]:
    """Yield the table: each way on each model."""
    yield "| model | way | seconds | of plain | tokens/s | peak MiB | of plain |"
    yield "|---|---|---|---|---|---|---|"
    for kind, rows in kinds.items():
        memory = {way: peak(kind, way, rows) for way in WAYS}
        case = CASES[kind](rows)
        tokens = sum(len(example["input_ids"]) for example in case.examples)
        for way, elapsed, ratio in time_ways(case, pairs):
            yield (
                f"| {case.name} | {way} | {elapsed:.2f} | {ratio:.2f} | {tokens / elapsed:,.0f}"
                f" | {memory[way]:,.0f} | {memory[way] / memory['plain']:.2f} |"
            )


@click.command()
@click.option("--pairs", default=PAIRS, help="Rounds of all ways.")
@click.option("--rows", default=4, help="Rows per update of the random models.")
@click.option("--demo-rows", default=32, help="Rows per update of the demo.")
@click.option("--out", default=PAGE, type=click.Path(path_type=Path), help="The page to write.")
def main(pairs: int, rows: int, demo_rows: int, out: Path) -> None:
    """Measure, and write docs/bench-finetune.md."""
    kinds = {"demo": demo_rows, "random": rows}
    lines = list(table(kinds, pairs))
    out.write_text(HEAD + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
