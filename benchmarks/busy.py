"""Time the demo's updates on an idle machine and beside busy loops, by how threads wait.

    make bench-busy

A busy loop per core makes the load. Each way is a process that holds the demo's model. The ways
take turns, idle and beside the load, so that all of them meet the same machine. `--repro` also
times the whole `dvc repro` in a clone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import click
from tqdm import tqdm

from stages import SPINS

LIBRARY = {"GOMP_SPINCOUNT": "300000"}  # libgomp's own default
DEFAULT, STAGES = "300,000 spins", f"{SPINS:,} spins"
COUNTS = sorted({0, 500, 1_000, 2_000, 4_000, 10_000, SPINS})
WAYS = {  # -> environment
    DEFAULT: LIBRARY,
    "one thread": LIBRARY | {"OMP_NUM_THREADS": "1"},
    **{f"{count:,} spins": {"GOMP_SPINCOUNT": str(count)} for count in COUNTS},
}
SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
PAGE = """# A busy machine

`make bench-busy` writes this page. A busy loop per core makes the load, on {cores} cores. An update
is one of `finetune` on {rows} rows of the demo. Times are medians of {rounds} rounds, in which all
ways take turns, idle and beside the load. A thread that waits for another spins, and then sleeps:
after {spins:,} spins in all stages, and after 300,000 in the library by itself.

Targets: idle at most 1.05 times the library by itself; `dvc repro` beside the load at most 2.5
times its idle time.

| way | idle, s | of 300,000 spins | beside the load, s | of 300,000 spins idle |
|---|--:|--:|--:|--:|
{lines}
"""
REPRO = """
The whole `dvc repro` of the demo, once each:

| | seconds | of idle |
|---|--:|--:|
{lines}
"""
Times = dict[tuple[str, bool], list[float]]  # by way, and whether beside the load: seconds


def serve(rows: int) -> None:
    """Make an update for each line of standard input; print its seconds."""
    from benchmarks.finetune import demo_case, fast

    case = demo_case(rows)
    fast(case)  # warm-up
    click.echo("ready")
    for _ in sys.stdin:
        begin = time.perf_counter()
        fast(case)
        click.echo(f"{time.perf_counter() - begin}")


def environment(way: str) -> dict[str, str]:
    """Return the environment of a way, without settings of the caller's."""
    return {k: v for k, v in os.environ.items() if k not in SETTINGS} | WAYS[way]


@contextmanager
def updates(way: str, rows: int) -> Iterator[subprocess.Popen[str]]:
    """Start a process that makes updates when told to."""
    code = f"from benchmarks.busy import serve; serve({rows})"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(way),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            _answer(process)
            yield process
        finally:
            process.kill()


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    if not (line := process.stdout.readline()):
        raise RuntimeError("an updating process ended; its error is above")
    return line


def seconds(process: subprocess.Popen[str]) -> float:
    """Let a process make an update; return its seconds."""
    assert process.stdin is not None
    print("update", file=process.stdin, flush=True)
    return float(_answer(process))


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Run loops that take a core each."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measured(rows: int, rounds: int, loops: int) -> Times:
    """Time updates of all ways, in turn, idle and beside the load."""
    times: Times = {(way, load): [] for way in WAYS for load in (False, True)}
    with ExitStack() as stack:
        processes = {way: stack.enter_context(updates(way, rows)) for way in WAYS}
        for _ in tqdm(range(rounds), unit="round", desc="updates"):
            for load in (False, True):
                with busy_loops(loops if load else 0):
                    for way, process in processes.items():
                        times[way, load].append(seconds(process))
    return times


def table(times: Times) -> Iterator[str]:
    """Yield a line per way; ratios are medians over rounds."""
    default = times[DEFAULT, False]

    def ratio(values: Sequence[float]) -> float:
        return median(a / b for a, b in zip(values, default, strict=True))

    for way in WAYS:
        idle, busy = times[way, False], times[way, True]
        yield (
            f"| {way} | {median(idle):.2f} | {ratio(idle):.2f}"
            f" | {median(busy):.2f} | {ratio(busy):.2f} |"
        )


def repro(way: str, loops: int) -> float:
    """Return the seconds of `dvc repro` in a clone of this checkout's last commit."""
    with tempfile.TemporaryDirectory() as folder, busy_loops(loops):
        subprocess.run(["git", "clone", "-q", ".", folder], check=True)
        begin = time.perf_counter()
        subprocess.run(["dvc", "repro", "-q"], cwd=folder, env=environment(way), check=True)
        return time.perf_counter() - begin


def repro_table(loops: int) -> Iterator[str]:
    """Yield the lines of the whole pipeline: idle as the library waits and as stages do, loaded."""
    default, idle, busy = repro(DEFAULT, 0), repro(STAGES, 0), repro(STAGES, loops)
    yield f"| idle, {DEFAULT} | {default:.0f} | {default / idle:.2f} |"
    yield f"| idle, {STAGES} | {idle:.0f} | 1.00 |"
    yield f"| beside the load, {STAGES} | {busy:.0f} | {busy / idle:.2f} |"


@click.command()
@click.option("--rows", default=32, help="Rows of an update.")
@click.option("--rounds", default=9, help="Rounds of all ways, idle and beside the load.")
@click.option("--loops", default=os.cpu_count() or 1, help="Busy loops.")
@click.option("--repro", "whole", is_flag=True, help="Time `dvc repro` too, about 25 minutes.")
@click.option("--out", default="docs/bench-busy.md", type=click.Path(path_type=Path))
def main(rows: int, rounds: int, loops: int, whole: bool, out: Path) -> None:
    """Measure, print and write docs/bench-busy.md."""
    facts = {"cores": os.cpu_count(), "rows": rows, "rounds": rounds, "spins": SPINS}
    text = PAGE.format(lines="\n".join(table(measured(rows, rounds, loops))), **facts)
    if whole:
        text += REPRO.format(lines="\n".join(repro_table(loops)))
    out.write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
