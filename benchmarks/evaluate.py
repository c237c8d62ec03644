"""How fast `evaluate` answers, beside lmms-eval's own loop over samples.

    make bench-evaluate

Both answer the demo's held-out set with the same weights in float32, through the same tasks, and
must say the same. lmms-eval's loop is its `huggingface` model (`lmms_eval.models.chat`), which
answers one prompt at a time unless told otherwise; it is timed at a batch of 1, its default, and at
ours. The sides take turns on equal shares of the rows; reading weights is left out on all sides,
opening images and tokenising is in.
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
from interlace.outputs import whole
from interlace.params.whole import read_params

MODEL, TEST = Path("data/demo/model"), Path("data/demo/test.parquet")
SHARES = 5  # turns of each side
HEAD = """# How fast `evaluate` answers

`make bench-evaluate` writes this page. Every side answers the demo's held-out set through the same
lmms-eval tasks with the same float32 weights. lmms-eval's loop is its own `huggingface` model, with
its default of one prompt at a time, and with the batch of ours. The sides take turns on {shares}
shares of the rows in one process with one thread; a ratio is the median over the shares. Opening
images and tokenising count, loading weights does not. Target: three times the samples per second of
lmms-eval's loop over samples, at the same answers.

"""


class OnlyImages:
    """A processor that is given no empty lists of media, which it refuses."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, *, videos: Any, audios: Any, images: Any, **given: Any) -> Any:
        """Encode text and images."""
        return self._processor(images=images or None, **given)

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


def theirs(model_dir: Path, batch_size: int, docs: Mapping[str, Any]) -> Side:
    """lmms-eval's own loop, with the weights that ours has; it would load a headless bfloat16."""
    from lmms_eval.models.chat.huggingface import Huggingface

    model = Huggingface(str(model_dir), device="cpu", device_map="cpu", batch_size=batch_size)
    model._model = open_model(model_dir, dtype="float32")
    model.processor.tokenizer.padding_side = "left"
    model.processor = OnlyImages(model.processor)
    model.task_dict = dict(docs)

    def answer(requests: Sequence[Any]) -> list[str]:
        return [str(getattr(made, "text", made)) for made in model.generate_until(list(requests))]

    return Side(f"lmms-eval's `huggingface`, batch {batch_size}", answer)


def ours(model_dir: Path, batch_size: int, docs: Mapping[str, Any]) -> Side:
    """Our adapter."""
    from interlace.evaluation.run.adapter import open_adapter

    adapter = open_adapter(Checkpoint(model_dir), batch_size=batch_size)
    adapter.task_dict = dict(docs)
    return Side(f"Interlace, batch {batch_size}", adapter.generate_until)


def asked(path: Path, max_new_tokens: int, rows: int | None) -> tuple[list[Any], dict[str, Any]]:
    """Requests for the rows of a held-out file, their sources in turn, and the rows by task."""
    from interlace.evaluation.run.tasks import heldout_tasks

    tasks = [scored.task for scored in heldout_tasks(path, max_new_tokens=max_new_tokens)]
    for task in tasks:
        task.build_all_requests(limit=rows)
        for request in task.instances:
            request.arguments = (request.args[0], _shown, *request.args[2:])
    longest = max(len(task.instances) for task in tasks)
    turns = [task.instances[i] for i in range(longest) for task in tasks if i < len(task.instances)]
    return turns, {task.config.task: task.dataset for task in tasks}


def _shown(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row's messages as lmms-eval's own models take them."""
    from interlace.model.chat import chat_messages

    messages = chat_messages(row)[:-1]
    for message in messages:
        for part in message["content"]:
            if part["type"] == "image":
                part["url"] = part.pop("image")
    return messages


def shares(requests: Sequence[Any]) -> Iterator[list[Any]]:
    """Equal shares of the requests, each with rows of every source."""
    size = -(-len(requests) // SHARES)
    for start in range(0, len(requests), size):
        yield list(requests[start : start + size])


def timed(side: Side, requests: Sequence[Any]) -> tuple[float, list[str]]:
    """Seconds that a side needs, and its answers."""
    started = time.perf_counter()
    answers = side.answer(requests)
    return time.perf_counter() - started, answers


def measured(sides: Sequence[Side], requests: Sequence[Any]) -> str:
    """Time all sides, in turn; the table. The last side is ours."""
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    answers: dict[str, list[str]] = {side.name: [] for side in sides}
    for side in sides:
        side.answer(requests[:2])  # warm-up
    parts = list(shares(requests))
    with tqdm(total=len(parts) * len(sides), unit="share") as progress:
        for part in parts:
            for side in sides:
                taken, said = timed(side, part)
                seconds[side.name].append(taken)
                answers[side.name] += said
                progress.update()
    last = sides[-1].name
    lines = ["| | samples/s | Interlace is | same answers |", "|---|--:|--:|--:|"]
    for name, spent in seconds.items():
        rate = len(requests) / sum(spent)
        ratio = median(a / b for a, b in zip(spent, seconds[last], strict=True))
        same = sum(
            heldout.is_exact_match(a, b) for a, b in zip(answers[name], answers[last], strict=True)
        )
        faster = "" if name == last else f"{ratio:.1f}x as fast"
        lines.append(f"| {name} | {rate:.1f} | {faster} | {same} of {len(requests)} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--rows", type=int, help="Rows of each source; all, if not given.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/bench-evaluate.md"))
def main(rows: int | None, out: Path) -> None:
    """Time both and write the page."""
    import torch

    torch.set_num_threads(1)
    params = read_params(Path("params.yaml")).evaluate
    with isolated(offline=True):
        requests, docs = asked(TEST, params.max_new_tokens, rows)
        sides = [
            theirs(MODEL, 1, docs),
            theirs(MODEL, params.batch_size, docs),
            ours(MODEL, params.batch_size, docs),
        ]
        table = measured(sides, requests)
    click.echo(table)
    with whole(out) as partial:
        partial.write_text(HEAD.format(shares=SHARES) + table, encoding="utf-8")


if __name__ == "__main__":
    main()
