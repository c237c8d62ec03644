"""Time `collect` and `evaluate` where images are opened ahead, beside opening and computing alone.

    make bench-prefetch

The images are JPEGs of 1024 x 768. A stand-in takes the model's place: its pass sleeps as long as
opening the batch's images takes in one process, as a GPU that leaves the CPU free. The loops around
it are those of both stages: reading, opening, encoding, batches and their order.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import torch
from PIL import Image

from benchmarks.random_model import DEMO
from interlace.evaluation.run.isolation import isolated
from interlace.evaluation.run.journal import Reply
from interlace.measurements import collect as collect_module
from interlace.model.chat import chat_messages
from interlace.model.open import open_processor
from interlace.params.measuring import Collect
from interlace.samples.rows import write_rows
from interlace.samples.windows import windows_of

SIZE = (1024, 768)
BATCH = 8  # prompts of `evaluate` together, so that its windows are as long as those of `collect`
PAGE = """# Images opened ahead

`make bench-prefetch` writes this page. {rows} JPEGs of {width} x {height}; {workers} workers on
{cores} cores. "Opening" is the whole loop in one process with a model that takes no time: reading,
decoding, encoding, batches. Otherwise the model is a stand-in that sleeps for as long as opening
took, as a GPU that leaves the CPU free. "In turn" is one process that does both, "ahead" is with
workers. Medians of {repeats} runs, "in turn" of one. The last column is the median of the time
ahead over that of opening just before it, and of the model; 1 would be perfect. The first 64 images
are opened before the model begins.

| | opening | in turn | ahead | ahead / opening |
|---|--:|--:|--:|--:|
{lines}
"""
Loop = Callable[[int, float], float]  # workers, seconds of the model per row -> seconds


@dataclass(frozen=True)
class Times:
    """Seconds of one loop."""

    name: str
    opening: float
    in_turn: float
    ahead: float
    ratio: float

    @property
    def line(self) -> str:
        """The loop's row of the table."""
        cells = " | ".join(f"{x:.1f} s" for x in (self.opening, self.in_turn, self.ahead))
        return f"| {self.name} | {cells} | {self.ratio:.2f} |"


def photographs(count: int) -> Iterator[dict[str, Any]]:
    """Yield rows of one image and a question."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        yield {
            "images": [{"bytes": file.getvalue(), "path": None}],
            "texts": [{"user": "What is in this image?", "assistant": "colours"}],
            "source": "made_up",
            "sample_id": f"{number:016x}",
            "domain": "native",
            "task": "native",
        }


def collect_loop(processor: Any, folder: Path) -> Loop:
    """Return the loop of `collect` over the rows of a folder."""

    def loop(workers: int, seconds: float) -> float:
        params = Collect(workers=workers, batch_tokens=8192)
        windows = windows_of([folder])

        def arrays(model: Any, batch: Any, group: Sequence[int], *_: Any) -> dict[str, Any]:
            time.sleep(seconds * len(group))
            return {"rows": np.array(group, np.int32)}

        model = torch.nn.Linear(1, 1)
        with (
            tempfile.TemporaryDirectory() as scratch,
            patch.object(collect_module, "_arrays", arrays),
        ):
            begin = time.perf_counter()
            collect_module._measure_share(model, processor, windows, Path(scratch), params)
            return time.perf_counter() - begin

    return loop


@contextmanager
def evaluate_loop(processor: Any, rows: Sequence[dict[str, Any]]) -> Iterator[Loop]:
    """Yield the loop of `evaluate` over the same rows."""
    with isolated(offline=True):
        from interlace.evaluation.run.adapter import CheckpointAdapter

        class Asleep(CheckpointAdapter):  # type: ignore[misc]
            def __init__(self, workers: int, seconds: float) -> None:
                self.processor, self.workers, self.seconds = processor, workers, seconds
                self.batch_size, self.conversations = BATCH, {}
                self.task_dict = {"photographs": {"test": list(range(len(rows)))}}

            def _replies(self, inputs: Sequence[Any], settings: Sequence[Any]) -> list[Reply]:
                time.sleep(self.seconds * len(inputs))
                return [Reply("") for _ in inputs]

        def messages(number: int) -> list[dict[str, Any]]:
            return chat_messages(rows[number])[:-1]

        requests = [
            SimpleNamespace(args=("?", messages, {"max_new_tokens": 1}, n, "photographs", "test"))
            for n in range(len(rows))
        ]

        def loop(workers: int, seconds: float) -> float:
            begin = time.perf_counter()
            answered = sum(len(batch) for batch in Asleep(workers, seconds).batches(requests))
            assert answered == len(rows)
            return time.perf_counter() - begin

        yield loop


def times(name: str, loop: Loop, rows: int, workers: int, repeats: int) -> Times:
    """Time a loop in all ways, in turn."""
    warm = loop(0, 0.0)  # files are in memory then, kernels are chosen
    in_turn = loop(0, warm / rows)
    openings, aheads = [], []
    for _ in range(repeats):
        openings.append(loop(0, 0.0))
        aheads.append(loop(workers, openings[-1] / rows))
    ratio = median(ahead / opening for opening, ahead in zip(openings, aheads, strict=True))
    return Times(name, median(openings), in_turn, median(aheads), ratio)


@click.command()
@click.option("--rows", default=1024, help="images, rows")
@click.option("--workers", default=min(4, os.cpu_count() or 1), help="processes that open images")
@click.option("--repeats", default=3, help="runs of opening, and ahead")
@click.option("--out", default="docs/bench-prefetch.md", type=click.Path(path_type=Path))
def main(rows: int, workers: int, repeats: int, out: Path) -> None:
    """Write the page."""
    torch.set_num_threads(1)
    processor = open_processor(DEMO, max_pixels=SIZE[0] * SIZE[1])
    made = list(photographs(rows))
    with tempfile.TemporaryDirectory() as name:
        write_rows(iter(made), Path(name))
        lines = [times("collect", collect_loop(processor, Path(name)), rows, workers, repeats).line]
    with evaluate_loop(processor, made) as loop:
        lines.append(times("evaluate", loop, rows, workers, repeats).line)
    facts = {"rows": rows, "workers": workers, "repeats": repeats, "cores": os.cpu_count()}
    size = dict(zip(("width", "height"), SIZE, strict=True))
    out.write_text(PAGE.format(lines="\n".join(lines), **facts, **size), encoding="utf-8")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
