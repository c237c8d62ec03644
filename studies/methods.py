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
from tqdm import tqdm

from interlace.errors import InputError
from interlace.evaluation.scores.result import Evaluation, read_evaluation
from interlace.methods.registry import METHODS
from interlace.selection.select import select
from interlace.system.documents import read_yaml
from studies.methods_page import Cell, write_page

RATIOS = (0.1, 0.25, 0.4)
SEEDS = range(5)  # of methods that draw
NOT_COMPARED = frozenset({"manual", "dense-ft"})  # drop the layers of a list, or none
BY_LOSS = frozenset({"sleb", "search", "taylor"})  # measured by a stage of their own
SCORES = Path("artifacts/scores.parquet")
EVALUATION, PLAN = "artifacts/evaluation/pruned.json", "artifacts/plan.json"


@dataclass(frozen=True)
class Run:
    """One experiment: a method at a ratio with a seed."""

    method: str
    ratio: float
    seed: int

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return f"study-{self.method}-{100 * self.ratio:.0f}-seed-{self.seed}"

    @property
    def settings(self) -> list[str]:
        """Its changes to params.yaml, as arguments of `dvc exp run`."""
        values = {"method": self.method, "ratio": self.ratio, "seed": self.seed}
        values |= {"select.base": "all"}
        return [item for name, value in values.items() for item in ("-S", f"{name}={value}")]


def runs() -> Iterator[Run]:
    """Yield all experiments, cheapest measurements first."""
    for method in METHODS:
        if method not in NOT_COMPARED:
            for ratio in RATIOS:
                for seed in SEEDS if method == "random" else SEEDS[:1]:
                    yield Run(method, ratio, seed)


def infeasible(run: Run) -> str | None:
    """Explain why a method cannot reach the ratio on the measured scores; None if it can."""
    if run.method in BY_LOSS:
        return None
    options = read_yaml(Path("params.yaml"))["select"] | {"base": "all"}
    try:
        select(SCORES, method=run.method, ratio=run.ratio, seed=run.seed, **options)
    except InputError as error:
        return str(error)
    return None


def dvc_command(*arguments: str) -> str:
    """Run dvc and return its output; an error shows the end of it.

    Raises:
        ClickException: dvc failed.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        output = (done.stdout + done.stderr).replace("\r", "\n").splitlines()[-20:]
        raise click.ClickException("\n".join([f"dvc {' '.join(arguments)} failed:", *output]))
    return done.stdout


def measure(feasible_runs: Sequence[Run]) -> None:
    """Run unfinished experiments one after another, outside the workspace."""
    done = set(dvc_command("exp", "list", "--names-only").split())
    missing = [run for run in feasible_runs if run.name not in done]
    for run in tqdm(missing, desc="study", unit="experiment"):
        experiment = ("exp", "run", "--temp", "--name", run.name, *run.settings)
        dvc_command(*experiment, "evaluate@pruned")


def result(run: Run) -> dict[str, Any]:
    """Read an experiment's scores by benchmark and the layers it dropped."""
    evaluation = Evaluation.model_validate_json(dvc.api.read(EVALUATION, rev=run.name))
    plan = json.loads(dvc.api.read(PLAN, rev=run.name))
    scores = {name: score.score for name, score in evaluation.scores.items()}
    return {"scores": scores, "drop": plan["drop"], "pairs": plan["shortfall"]["pairs"]}


def cells_of(
    feasible_runs: Sequence[Run], reason_by_run: Mapping[Run, str]
) -> dict[tuple[str, float], Cell]:
    """Collect the table's cells by method and ratio."""
    cells: dict[tuple[str, float], Cell] = {}
    for method, ratio in dict.fromkeys(
        (run.method, run.ratio) for run in (*feasible_runs, *reason_by_run)
    ):
        runs_of_cell = [run for run in feasible_runs if (run.method, run.ratio) == (method, ratio)]
        results = [result(run) for run in runs_of_cell]
        if not results:
            reasons = [
                reason
                for run, reason in reason_by_run.items()
                if (run.method, run.ratio) == (method, ratio)
            ]
            cells[method, ratio] = Cell(reason=reasons[0])
            continue
        means = [mean(experiment["scores"].values()) for experiment in results]
        sources = {
            name: mean(experiment["scores"][name] for experiment in results)
            for name in results[0]["scores"]
        }
        cells[method, ratio] = Cell(
            score=mean(means),
            spread=stdev(means) if len(means) > 1 else None,
            seeds=len(means),
            drop=tuple(results[0]["drop"]) if len(results) == 1 else (),
            pairs=results[0]["pairs"],
            by_source=sources,
        )
    return cells


def write_csv(feasible_runs: Sequence[Run], path: Path) -> None:
    """Write one row per experiment and benchmark."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "ratio", "seed", "benchmark", "score", "dropped"])
        for run in feasible_runs:
            experiment = result(run)
            layers = " ".join(map(str, experiment["drop"]))
            for name, score in experiment["scores"].items():
                row = [run.method, run.ratio, run.seed, name, round(score, 4), layers]
                writer.writerow(row)


@click.command()
@click.option("--limit", type=int, help="Run only the first experiments.")
def main(limit: int | None) -> None:
    """Run all methods at all ratios on the demo, and write the page."""
    dvc_command("repro")  # experiments need all outputs of dvc.lock in the cache
    dense = read_evaluation(Path("artifacts/evaluation/dense.json"))
    every = list(runs())[:limit]
    reason_by_run = {run: reason for run in every if (reason := infeasible(run))}
    feasible_runs = [run for run in every if run not in reason_by_run]
    measure(feasible_runs)
    write_csv(feasible_runs, Path("docs/study-methods.csv"))
    scores = {name: score.score for name, score in dense.scores.items()}
    write_page(cells_of(feasible_runs, reason_by_run), scores, RATIOS, Path("docs"))
    click.echo("written: docs/study-methods.md, docs/study-methods.csv, docs/study-methods.png")


if __name__ == "__main__":
    main()
