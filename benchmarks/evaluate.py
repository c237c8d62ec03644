"""Time `evaluate` against lmms-eval's own loop over samples.

    make bench-evaluate

Both answer the demo's held-out set through the same tasks with the same float32 weights, and must
give the same answers. lmms-eval's loop is its `huggingface` model (`lmms_eval.models.chat`), timed
at its default batch of 1 and at Interlace's batch. The sides take turns on equal shares of the
rows. Opening images and tokenising are timed; loading weights is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
from tqdm import tqdm

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.evaluation.benchmarks import heldout
from interlace.evaluation.run.isolation import isolated
from interlace.model.open import open_model
from interlace.params.evaluating import Evaluate
from interlace.params.whole import read_params
from interlace.system.outputs import whole

MODEL, TEST = Path("data/demo/model"), Path("data/demo/test.parquet")
SHARES = 5  # turns of each side
HEAD = """# Speed of `evaluate`

`make bench-evaluate` writes this page. All sides answer the demo's held-out set through the same
lmms-eval tasks with the same float32 weights. lmms-eval's loop is its own `huggingface` model, at
its default batch of 1 and at Interlace's batch. The sides take turns on {shares} shares of the rows
in one process with one thread; a ratio is the median over the shares. Opening images and tokenising
are timed; loading weights is not. Target: three times the samples per second of lmms-eval's loop
over samples, with the same answers.

"""


class OnlyImages:
    """A processor that is called without empty lists of media, which it refuses."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, *, videos: Any, audios: Any, images: Any, **settings: Any) -> Any:
        """Encode text and images."""
        return self._processor(images=images or None, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)


@dataclass(frozen=True)
class Side:
    """One way to answer.

    Attributes:
        name: for the table.
        answer: answers to requests, in their order.
    """

    name: str
    answer: Callable[[Sequence[Any]], list[str]]


def lmms_eval_side(model_dir: Path, batch_size: int, docs: Mapping[str, Any]) -> Side:
    """Open lmms-eval's loop with float32 weights; it would load bfloat16 without a head."""
    from lmms_eval.models.chat.huggingface import Huggingface

    model = Huggingface(str(model_dir), device="cpu", device_map="cpu", batch_size=batch_size)
    model._model = open_model(model_dir, dtype="float32")
    model.processor.tokenizer.padding_side = "left"
    model.processor = OnlyImages(model.processor)
    model.task_dict = dict(docs)

    def answer(requests: Sequence[Any]) -> list[str]:
        return [
            str(getattr(output, "text", output)) for output in model.generate_until(list(requests))
        ]

    return Side(f"lmms-eval's `huggingface`, batch {batch_size}", answer)


def interlace_side(model_dir: Path, batch_size: int, docs: Mapping[str, Any]) -> Side:
    """Open Interlace's adapter."""
    from interlace.evaluation.run.adapter import open_adapter

    adapter = open_adapter(Checkpoint(model_dir), Evaluate(batch_size=batch_size))
    adapter.task_dict = dict(docs)
    return Side(f"Interlace, batch {batch_size}", adapter.generate_until)


def heldout_requests(
    path: Path, max_new_tokens: int, rows: int | None
) -> tuple[list[Any], dict[str, Any]]:
    """Build requests for a held-out file, sources in turn; return them and the rows by task."""
    from interlace.evaluation.run.tasks import heldout_tasks

    tasks = [scored.task for scored in heldout_tasks(path, max_new_tokens=max_new_tokens)]
    for task in tasks:
        task.build_all_requests(limit=rows)
        for request in task.instances:
            request.arguments = (request.args[0], _lmms_eval_messages, *request.args[2:])
    longest = max(len(task.instances) for task in tasks)
    turns = [task.instances[i] for i in range(longest) for task in tasks if i < len(task.instances)]
    return turns, {task.config.task: task.dataset for task in tasks}


def _lmms_eval_messages(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Write a row's messages as lmms-eval's own models take them."""
    from interlace.model.chat import chat_messages

    messages = chat_messages(row)[:-1]
    for message in messages:
        for item in message["content"]:
            if item["type"] == "image":
                item["url"] = item.pop("image")
    return messages


def shares(requests: Sequence[Any]) -> Iterator[list[Any]]:
    """Split the requests into equal shares, each with rows of every source."""
    size = -(-len(requests) // SHARES)
    for start in range(0, len(requests), size):
        yield list(requests[start : start + size])


def time_side(side: Side, requests: Sequence[Any]) -> tuple[float, list[str]]:
    """Let a side answer; return its seconds and its answers."""
    begin = time.perf_counter()
    answers = side.answer(requests)
    return time.perf_counter() - begin, answers


def time_in_turn(
    sides: Sequence[Side], requests: Sequence[Any]
) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """Let all sides answer share by share, in turn; return seconds and answers by side."""
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    answers: dict[str, list[str]] = {side.name: [] for side in sides}
    for side in sides:
        side.answer(requests[:2])  # warm-up
    all_shares = list(shares(requests))
    with tqdm(total=len(all_shares) * len(sides), unit="share") as progress:
        for share in all_shares:
            for side in sides:
                elapsed, texts = time_side(side, share)
                seconds[side.name].append(elapsed)
                answers[side.name] += texts
                progress.update()
    return seconds, answers


def measure(sides: Sequence[Side], requests: Sequence[Any]) -> str:
    """Time all sides in turn and return the table; the last side is Interlace."""
    seconds, answers = time_in_turn(sides, requests)
    last = sides[-1].name
    lines = ["| | samples/s | Interlace is | same answers |", "|---|--:|--:|--:|"]
    for name, times in seconds.items():
        rate = len(requests) / sum(times)
        ratio = median(a / b for a, b in zip(times, seconds[last], strict=True))
        same = sum(
            heldout.is_exact_match(a, b) for a, b in zip(answers[name], answers[last], strict=True)
        )
        faster = "" if name == last else f"{ratio:.1f}x as fast"
        lines.append(f"| {name} | {rate:.1f} | {faster} | {same} of {len(requests)} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--rows", type=int, help="Rows per source; default: all.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/bench-evaluate.md"))
def main(rows: int | None, out: Path) -> None:
    """Time all sides and write the page."""
    import torch

    torch.set_num_threads(1)
    params = read_params(Path("params.yaml")).evaluate
    with isolated(offline=True):
        requests, docs = heldout_requests(TEST, params.longest_heldout, rows)
        sides = [
            lmms_eval_side(MODEL, 1, docs),
            lmms_eval_side(MODEL, params.batch_size, docs),
            interlace_side(MODEL, params.batch_size, docs),
        ]
        table = measure(sides, requests)
    click.echo(table)
    with whole(out) as partial:
        partial.write_text(HEAD.format(shares=SHARES) + table, encoding="utf-8")


if __name__ == "__main__":
    main()
