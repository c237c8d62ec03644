"""Run every check and every measurement that needs a GPU; write docs/gpu.md.

    make gpu
    python -m benchmarks.gpu --part collect --part ttft-8B
    python -m benchmarks.gpu --tiny

Each part runs in a process of its own and leaves its figures in .scratch/gpu as they come. A part
that fails, or for which no time is left, is named in the table; the others go on. The page holds
the last figures of every part, those of earlier runs among them.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import torch
import transformers

from benchmarks.gpu.checks import checking
from benchmarks.gpu.decoders import collecting, updating
from benchmarks.gpu.models import CELLS, answering, exporting, first_token
from benchmarks.gpu.setting import TINY, Figure, Result, Setting
from interlace.system.documents import read_json
from interlace.system.outputs import write_json

SCRATCH, PAGE = Path(".scratch/gpu"), Path("docs/gpu.md")
MINUTES = 10.0
NOTHING = "none"  # write the page from earlier figures
PARTS: Mapping[str, Callable[[Setting], Iterator[Result]]] = {  # each yields what it has so far
    "collect": collecting,
    "finetune": updating,
    "export": exporting,
    "evaluate": answering,
    "ttft-8B": first_token("8B"),
    "ttft-4B": first_token("4B"),
    "checks": checking,
}
HEAD = """# On a GPU

`make gpu` writes this page on one card, in at most ten minutes. It runs the tests marked gpu and
measures `collect`, `finetune`, `export`, `evaluate` and the time to first token on models with
random weights in the shapes of Qwen3-VL's. All ways that are compared take turns in one process;
figures are medians, ratios are medians of the ratios of each round; a request of more than 8,000
tokens is timed once, after a warm-up. `finetune` tunes a quarter of
the decoder's layers after a quarter was dropped; the plain way computes gradients of all weights,
pads rows and computes logits at all positions. "By layers" is the ratio of the numbers of layers.

"""
TABLE = "| measured | figure | beside it |\n| --- | --: | --- |\n"
TABLE_4 = f"""
## Speedup of the first token

{CELLS}, per benchmark and share of dropped layers. Published: arXiv 2511.19676, table 4. A request
has the size that is typical of a benchmark; the paper gives none. The ideal is the ratio of FLOPs.
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a part.

    Attributes:
        name: of the part.
        place: card and versions that it ran with.
        seconds: it took.
        result: figures and table, perhaps not all; `None`: there are none.
        reason: one line, if it did not end.
    """

    name: str
    place: str
    seconds: float
    result: Result | None
    reason: str = ""

    def lines(self) -> str:
        """Format the lines of the table."""
        figures = self.result.figures if self.result else []
        if self.reason:
            state = "not finished" if figures else "not measured"
            figures = [*figures, Figure(self.name, state, self.reason)]
        return "".join(f"| {f.label} | {f.value} | {f.reference} |\n" for f in figures)


def place() -> str:
    """Name the card, its driver's CUDA and the versions that the figures depend on."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"
    return (
        f"{card}, Python {platform.python_version()}, torch {torch.__version__}, transformers"
        f" {transformers.__version__}"
    )


def run_part(name: str, folder: Path, seconds: float, options: Sequence[str]) -> Outcome:
    """Run a part in a process of its own, for so many seconds at most; keep what it gives."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--run", name, "--results", str(folder)]
    file, log = folder / f"{name}.json", folder / f"{name}.log"
    file.unlink(missing_ok=True)
    begin = time.monotonic()
    with log.open("w", encoding="utf-8") as errors:
        program = subprocess.Popen([*command, *options], stderr=errors)
        try:
            code: int | None = program.wait(timeout=max(0.0, seconds))
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
            code = None
    reason = ""
    if code is None:
        reason = "no time was left"
    elif code:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        reason = f"{last}; all of it in {log}".replace("|", "/")
    partial = Outcome(name, place(), time.monotonic() - begin, None, reason)
    outcome = replace(read_outcome(name, folder), reason=reason) if file.exists() else partial
    write_json(file, asdict(outcome))
    return outcome


def write_outcome(name: str, folder: Path, setting: Setting) -> None:
    """Run a part in this process, and write its figures as they come."""
    begin = time.monotonic()
    for result in PARTS[name](setting):
        outcome = Outcome(name, place(), time.monotonic() - begin, result)
        write_json(folder / f"{name}.json", asdict(outcome))


def read_outcome(name: str, folder: Path) -> Outcome:
    """Read the figures that a part left."""
    value = read_json(folder / f"{name}.json")
    if result := value["result"]:
        figures = [Figure(**figure) for figure in result["figures"]]
        value["result"] = Result(figures, result["table"])
    return Outcome(**value)


def page(outcomes: Sequence[Outcome]) -> str:
    """Format the page: where it ran, the common table, table 4."""
    places = sorted({outcome.place for outcome in outcomes if outcome.result}) or [place()]
    total = sum(outcome.seconds for outcome in outcomes)
    text = f"{HEAD}{'; '.join(places)}. All parts took {total / 60:.1f} minutes.\n\n{TABLE}"
    text += "".join(outcome.lines() for outcome in outcomes)
    tables = [outcome.result.table for outcome in outcomes if outcome.result]
    if any(tables):
        text += TABLE_4 + "".join(f"\n{table}" for table in tables if table)
    return text


@click.command()
@click.option(
    "--part", "parts", multiple=True, type=click.Choice([*PARTS, NOTHING]), help="Only these."
)
@click.option("--minutes", default=MINUTES, show_default=True, help="For all parts together.")
@click.option("--results", default=SCRATCH, type=click.Path(path_type=Path), help="Their figures.")
@click.option("--out", default=PAGE, type=click.Path(path_type=Path), help="The page to write.")
@click.option("--tiny", is_flag=True, help="Try the program on a CPU with tiny models; no page.")
@click.option("--rounds", default=Setting.rounds, show_default=True, help="Timed rounds.")
@click.option("--run", "single", hidden=True, type=click.Choice(list(PARTS)))
def main(
    parts: tuple[str, ...],
    minutes: float,
    results: Path,
    out: Path,
    tiny: bool,
    rounds: int,
    single: str | None,
) -> None:
    """Run the parts one after the other, print the table and write the page."""
    if single:
        write_outcome(single, results, TINY if tiny else Setting(rounds=rounds))
        return
    if not tiny and not torch.cuda.is_available() and parts != (NOTHING,):
        click.echo("error: no CUDA device; run it where there is one, or with --tiny", err=True)
        sys.exit(2)
    folder = results / "tiny" if tiny else results
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * minutes
    outcomes = []
    for number, name in enumerate(PARTS):
        if parts and name not in parts:
            if (folder / f"{name}.json").is_file():
                outcomes.append(read_outcome(name, folder))
            else:
                outcomes.append(Outcome(name, place(), 0.0, None, "it was not asked for"))
            continue
        click.echo(f"gpu: {name}, {number + 1} of {len(PARTS)}", err=True)
        options = ["--tiny"] if tiny else ["--rounds", str(rounds)]
        outcomes.append(run_part(name, folder, deadline - time.monotonic(), options))
        click.echo(outcomes[-1].lines(), nl=False)
    text = page(outcomes)
    click.echo(text)
    if not tiny:
        out.write_text(text, encoding="utf-8")
    if any(outcome.reason for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
