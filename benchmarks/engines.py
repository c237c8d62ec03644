"""Compare the engines of `evaluate`: the same questions, the same answers, and their speed.

    make bench-engines
    python -m benchmarks.engines --command ".scratch/vllm/bin/vllm serve --dtype float32"

The demo's held-out questions are answered by the model opened in this process, and by a server for
each command, on one machine. The sides take turns on equal shares of the rows, and must give the
same answers; each difference is listed. Opening images, tokenising and HTTP are timed; loading
weights and starting servers is not.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.evaluate import (
    MODEL,
    SHARES,
    TEST,
    Side,
    heldout_requests,
    interlace_side,
    time_in_turn,
)
from interlace.evaluation.run.isolation import isolated
from interlace.evaluation.run.served import ServedAdapter
from interlace.evaluation.run.server import FIELD, command_name, running
from interlace.evaluation.run.servers import Servers
from interlace.params.evaluating import Evaluate
from interlace.params.served import ServedModel, Vllm
from interlace.params.whole import read_params
from interlace.sources.endpoint import Endpoint
from interlace.system.outputs import whole

SERVE = f"{shlex.quote(sys.executable)} -m transformers.cli.transformers serve --dtype float32"
PRUNED = Path("artifacts/pruned")
LISTED = 20  # differences on the page
LOGS = Path(".scratch/bench-engines")
HEAD = """# Engines of `evaluate`

`make bench-engines` writes this page. The demo's held-out questions{share} are answered by
`engine: transformers`, and by `engine: vllm` with each command, for the dense and the pruned model,
with float32 weights and one thread each. The sides take turns on {shares} shares of the rows; a
ratio is the median over the shares. Opening images, tokenising and HTTP are timed; loading weights
and starting servers is not. Answers are the same if they are equal without the spaces around them.
"""


def compare(
    model: Path, commands: Sequence[str], rows: int | None, concurrency: int, params: Evaluate
) -> str:
    """Let all engines answer for one model; return the table."""
    with isolated(offline=True), contextlib.ExitStack() as stack:
        requests, docs = heldout_requests(TEST, params.longest_heldout, rows)
        sides = [interlace_side(model, params.batch_size, docs)]
        for number, command in enumerate(commands):
            log = LOGS / model.name / f"{number}.log"
            served = stack.enter_context(running(Vllm(command=command), model, log))
            name = command_name(command)
            if version := Endpoint(served, FIELD).version:
                name += f", version {version}"
            sides.append(served_side(name, served, concurrency, docs))
        return measure(sides, requests)


def served_side(name: str, served: ServedModel, concurrency: int, docs: Mapping[str, Any]) -> Side:
    """Ask a server, many requests at the same time, and nothing from a cache."""
    adapter = ServedAdapter(
        Servers([Endpoint(served, FIELD, names=("command", "command"))]),
        concurrency=concurrency,
        max_failed=0,
    )
    adapter.task_dict = dict(docs)

    def answer(requests: Sequence[Any]) -> list[str]:
        replies = {
            index: reply for batch in adapter.batches(requests) for index, reply in batch.items()
        }
        return [replies[index].text for index in range(len(requests))]

    return Side(name, answer)


def measure(sides: Sequence[Side], requests: Sequence[Any]) -> str:
    """Time all sides in turn; return the table, and the answers that differ from the first side."""
    seconds, texts = time_in_turn(sides, requests)
    answers = {name: [text.strip() for text in replies] for name, replies in texts.items()}
    first = sides[0].name
    lines = ["| engine | questions/s | of the first | same answers |", "|---|--:|--:|--:|"]
    differences = []
    for name, times in seconds.items():
        ratio = median(a / b for a, b in zip(seconds[first], times, strict=True))
        pairs = list(zip(requests, answers[first], answers[name], strict=True))
        differing = [(name, *pair) for pair in pairs if pair[1] != pair[2]]
        differences += differing
        same = f"{len(pairs) - len(differing)} of {len(pairs)}"
        lines.append(f"| {name} | {len(pairs) / sum(times):.1f} | {ratio:.2f} | {same} |")
    return "\n".join([*lines, "", *_listed(differences)]) + "\n"


def _listed(differences: Sequence[tuple[str, Any, str, str]]) -> list[str]:
    """List answers that differ: the question's row, the first engine's answer, and the other's."""
    if not differences:
        return ["All answers are the same."]
    lines = ["| engine | question | first engine | this engine |", "|---|---|---|---|"]
    for name, request, expected, text in differences[:LISTED]:
        lines.append(f"| {name} | {request.args[4]}, row {request.args[3]} | {expected} | {text} |")
    more = len(differences) - LISTED
    return [*lines, "", *([f"And {more} more."] if more > 0 else [])]


@click.command()
@click.option("--command", "commands", multiple=True, help="A further server to compare.")
@click.option(
    "--model",
    "models",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    default=(MODEL, PRUNED),
    show_default=True,
    help="A checkpoint.",
)
@click.option("--rows", type=int, help="Rows per source; default: all.")
@click.option("--concurrency", type=int, default=32, help="Requests at the same time.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/bench-engines.md"))
def main(
    commands: tuple[str, ...],
    models: tuple[Path, ...],
    rows: int | None,
    concurrency: int,
    out: Path,
) -> None:
    """Compare all engines and write the page."""
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"  # of the servers
    torch.set_num_threads(1)
    params = read_params(Path("params.yaml")).evaluate
    text = HEAD.format(share=f" ({rows} of each source)" if rows else "", shares=SHARES)
    for model in models:
        table = compare(model, (SERVE, *commands), rows, concurrency, params)
        click.echo(table)
        text += f"\n## {model}\n\n{table}"
    with whole(out) as partial:
        partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
