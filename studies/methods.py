"""All methods of choosing layers on the demo, before any tuning, as DVC experiments.

    make study-methods

A study that was stopped resumes: finished experiments are skipped. All methods drop the same number
of layers (`select.base = all`), spare the same DeepStack layers, and are scored on the same
held-out rows. Writes docs/study-methods.md, .csv and .png.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click
import dvc.api
import yaml
from tqdm import tqdm

from interlace.errors import InputError
from interlace.evaluation.scores.result import Evaluation, read_evaluation
from interlace.methods.registry import METHODS
from interlace.selection.select import select
from studies.methods_page import Cell, write_page

RATIOS = (0.1, 0.25, 0.4)
SEEDS = range(5)  # of methods that draw
NOT_COMPARED = frozenset({"manual", "dense-ft"})  # drop what they are told, or nothing
BY_LOSS = frozenset({"sleb", "taylor"})  # measured by a stage of their own, when asked for
SCORES = Path("artifacts/scores.parquet")
EVALUATION, PLAN = "artifacts/evaluation/pruned.json", "artifacts/plan.json"


@dataclass(frozen=True)
class Run:
    """One experiment: a method at a ratio under a seed."""

    method: str
    ratio: float
    seed: int

    @property
    def name(self) -> str:
        """What the experiment is called."""
        return f"study-{self.method}-{100 * self.ratio:.0f}-seed-{self.seed}"

    @property
    def settings(self) -> list[str]:
        """What it changes in params.yaml, as arguments of `dvc exp run`."""
        values = {"method": self.method, "ratio": self.ratio, "seed": self.seed}
        values |= {"select.base": "all"}
        return [part for name, value in values.items() for part in ("-S", f"{name}={value}")]


def runs() -> Iterator[Run]:
    """All experiments, cheapest measurements first."""
    for method in METHODS:
        if method not in NOT_COMPARED:
            for ratio in RATIOS:
                for seed in SEEDS if method == "random" else SEEDS[:1]:
                    yield Run(method, ratio, seed)


def infeasible(run: Run) -> str | None:
    """Why a method cannot reach the ratio on the measured scores; none where it can."""
    if run.method in BY_LOSS:
        return None
    asked = yaml.safe_load(Path("params.yaml").read_text())["select"] | {"base": "all"}
    try:
        select(SCORES, method=run.method, ratio=run.ratio, seed=run.seed, **asked)
    except InputError as error:
        return str(error)
    return None


def dvc_command(*arguments: str) -> str:
    """Run dvc and return what it says; a failure shows the end of that.

    Raises:
        ClickException: dvc failed.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).replace("\r", "\n").splitlines()[-20:]
        raise click.ClickException("\n".join([f"dvc {' '.join(arguments)} failed:", *said]))
    return done.stdout


def measure(wanted: Sequence[Run]) -> None:
    """Run what is not done yet, one experiment after another, apart from the workspace."""
    done = set(dvc_command("exp", "list", "--names-only").split())
    missing = [run for run in wanted if run.name not in done]
    for run in tqdm(missing, desc="study", unit="experiment"):
        experiment = ("exp", "run", "--temp", "--name", run.name, *run.settings)
        dvc_command(*experiment, "evaluate@pruned")


def result(run: Run) -> dict[str, Any]:
    """What one experiment measured: scores by benchmark and the layers it dropped."""
    evaluation = Evaluation.model_validate_json(dvc.api.read(EVALUATION, rev=run.name))
    plan = json.loads(dvc.api.read(PLAN, rev=run.name))
    scores = {name: score.score for name, score in evaluation.scores.items()}
    return {"scores": scores, "drop": plan["drop"], "pairs": plan["shortfall"]["pairs"]}


def gathered(wanted: Sequence[Run], excused: Mapping[Run, str]) -> dict[tuple[str, float], Cell]:
    """The table's cells, by method and ratio."""
    cells: dict[tuple[str, float], Cell] = {}
    for method, ratio in dict.fromkeys((run.method, run.ratio) for run in (*wanted, *excused)):
        same = [run for run in wanted if (run.method, run.ratio) == (method, ratio)]
        found = [result(run) for run in same]
        if not found:
            reasons = [
                why for run, why in excused.items() if (run.method, run.ratio) == (method, ratio)
            ]
            cells[method, ratio] = Cell(reason=reasons[0])
            continue
        means = [mean(each["scores"].values()) for each in found]
        sources = {
            name: mean(each["scores"][name] for each in found) for name in found[0]["scores"]
        }
        cells[method, ratio] = Cell(
            score=mean(means),
            spread=stdev(means) if len(means) > 1 else None,
            seeds=len(means),
            drop=tuple(found[0]["drop"]) if len(found) == 1 else (),
            pairs=found[0]["pairs"],
            by_source=sources,
        )
    return cells


def write_csv(wanted: Sequence[Run], path: Path) -> None:
    """One row per experiment and benchmark."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "ratio", "seed", "benchmark", "score", "dropped"])
        for run in wanted:
            found = result(run)
            layers = " ".join(map(str, found["drop"]))
            for name, score in found["scores"].items():
                row = [run.method, run.ratio, run.seed, name, round(score, 4), layers]
                writer.writerow(row)


@click.command()
@click.option("--limit", type=int, help="Run only so many experiments, to try it.")
def main(limit: int | None) -> None:
    """Run every method at every ratio on the demo, and write the page about it."""
    dvc_command("repro")  # all of it: experiments need every output of dvc.lock in the cache
    dense = read_evaluation(Path("artifacts/evaluation/dense.json"))
    every = list(runs())[:limit]
    excused = {run: why for run in every if (why := infeasible(run))}
    wanted = [run for run in every if run not in excused]
    measure(wanted)
    write_csv(wanted, Path("docs/study-methods.csv"))
    scores = {name: score.score for name, score in dense.scores.items()}
    write_page(gathered(wanted, excused), scores, RATIOS, Path("docs"))
    click.echo("written: docs/study-methods.md, docs/study-methods.csv, docs/study-methods.png")


if __name__ == "__main__":
    main()
