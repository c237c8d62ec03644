"""How much of what pruning costs comes back, by each way to heal, on the demo.

    dvc repro score && python -m benchmarks.recovery

Every run is a row of `.scratch/recovery/runs.csv`; rows that are there are not run again. Learning
rates are chosen on rows of the training set that no run trains on. Then the page is written anew.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

import interlace
from benchmarks.heldout_score import Question, heldout_score, questions
from benchmarks.recovery_page import FIRST, write_page
from interlace.chat import open_processor
from interlace.errors import InputError
from interlace.healing import heal
from interlace.params import Export, Finetune, Sensitivity
from interlace.plan import Plan
from interlace.sources import open_model

DENSE, SCORES = Path("data/demo/model"), Path("artifacts/scores.parquet")
SCRATCH = Path(".scratch/recovery")
RATIOS = (0.1, 0.25, 0.4)
METHODS = (FIRST, "consecutive", "random")
SEEDS = (0, 1, 2)
STEPS, BATCH = 150, 32  # updates of a run, rows of an update
SHARES = (0.125, 0.25, 0.5, 1.0)  # of the training set, read once
CHOOSE_EVERY = 20  # every so-manieth training row is kept to choose learning rates on
LOCAL_RATES = (1e-3, 3e-3, 1e-2)
END_TO_END_RATES = (2.5e-4, 5e-4, 1e-3)


@dataclass(frozen=True)
class Variant:
    """A way to heal: the share of updates made layer by layer, and what else is on."""

    local: float = 0.0
    compensated: bool = False
    distilled: bool = False

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates to choose from: of local healing where there is nothing else."""
        return LOCAL_RATES if self.local == 1 else END_TO_END_RATES


VARIANTS = {  # local first: others start from its learning rate
    "local": Variant(local=1.0),
    "recipe": Variant(),
    "local, then recipe": Variant(local=0.5),
    "compensated, then recipe": Variant(compensated=True),
    "distilled": Variant(distilled=True),
    "all": Variant(local=0.5, compensated=True, distilled=True),
}


@dataclass(frozen=True)
class Run:
    """One healed model, or with variant `pruned` one that is not.

    Attributes:
        steps: updates of `BATCH` rows, local and end-to-end together.
        rate: peak learning rate; of local healing where there is nothing else.
        local_rate: that of local healing where both are done.
    """

    method: str
    ratio: float
    seed: int
    variant: str
    steps: int = STEPS
    rate: float = 0.0
    local_rate: float = 0.0


@dataclass(frozen=True)
class Found:
    """What a run scored, percent: on the held-out file, and on the rows to choose on."""

    heldout: float
    choosing: float


class Results:
    """The rows of a CSV file: one per finished run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[Run, Found] = {}
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    kinds = {
                        f.name: type(getattr(Run("", 0.0, 0, ""), f.name)) for f in fields(Run)
                    }
                    run = Run(**{name: kind(row[name]) for name, kind in kinds.items()})
                    self.found[run] = Found(float(row["heldout"]), float(row["choosing"]))

    def add(self, run: Run, found: Found) -> None:
        """Append a row; what is there stays."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        row = asdict(run) | asdict(found)
        fresh = not self.path.is_file()
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        self.found[run] = found


class Bench:
    """The demo's model, its training rows without those to choose on, and both sets to score."""

    def __init__(self, limit: int | None = None) -> None:
        self.processor = open_processor(DENSE)
        rows = pq.read_table("data/train")
        places = pa.array(range(len(rows)))
        choosing = [place for place in range(len(rows)) if place % CHOOSE_EVERY == 0]
        SCRATCH.mkdir(parents=True, exist_ok=True)
        self.train, chosen = SCRATCH / "train", SCRATCH / "choosing.parquet"
        self.train.mkdir(exist_ok=True)
        left = [place for place in places.to_pylist() if place % CHOOSE_EVERY]
        pq.write_table(rows.take(left), self.train / "part-00000.parquet")
        pq.write_table(rows.take(choosing), chosen)
        self.n_rows = len(left)
        self.choosing = questions(chosen, self.processor, limit)
        self.heldout = questions(Path("data/demo/test.parquet"), self.processor, limit)

    def scores(self, folder: Path) -> Found:
        """Score a checkpoint on both sets."""
        model = open_model(folder)

        def of(asked: list[Question]) -> float:
            return heldout_score(model, self.processor, asked, batch_size=64, max_new_tokens=12)

        return Found(of(self.heldout), of(self.choosing))

    def measure(self, run: Run) -> Found:
        """Prune, heal and score."""
        work = SCRATCH / f"work-{os.getpid()}"
        shutil.rmtree(work, ignore_errors=True)
        plan = plan_of(run)
        self._prune(plan, VARIANTS.get(run.variant, Variant()).compensated, work)
        if run.variant == "pruned":
            found = self.scores(work / "pruned")
        else:
            heal(
                DENSE,
                work / "pruned",
                self.train,
                work / "tuned",
                (work / "local.csv", work / "loss.csv"),
                plan=plan,
                params=recipe(run),
                seed=run.seed,
                scratch=work / "scratch",
            )
            found = self.scores(work / "tuned")
        shutil.rmtree(work)
        return found

    def _prune(self, plan: Plan, compensated: bool, work: Path) -> None:
        more: dict[str, Any] = {}
        if compensated:
            from interlace.new_weights import Dense, new_weights

            dense = Dense(DENSE, Path("data/calibration"), Sensitivity(), False)
            export = Export(compensate="lstsq")
            more["replaced"], _ = new_weights(dense, plan, export, work / "compensation")
        interlace.export(DENSE, plan, work / "pruned", **more)


def plan_of(run: Run) -> Plan:
    """The layers of a run; those of `random` depend on its seed."""
    return interlace.select(SCORES, method=run.method, ratio=run.ratio, seed=run.seed)


def recipe(run: Run) -> Finetune:
    """The demo's recipe, changed as the run's variant asks."""
    variant = VARIANTS[run.variant]
    local = round(variant.local * run.steps)
    return Finetune(
        max_steps=run.steps - local,
        learning_rate=run.rate,
        local_steps=local,
        local_learning_rate=run.rate if variant.local == 1 else run.local_rate or 1e-3,
        distill_logits=float(variant.distilled),
        distill_states=float(variant.distilled),
        batch_size=BATCH,
        micro_batch_size=BATCH,
        max_length=2048,
        min_pixels=None,
        max_pixels=None,
        gradient_checkpointing=False,
        zero_stage=0,
        workers=0,
        save_steps=10_000,
        log_steps=10,
    )


def feasible(run: Run) -> bool:
    """Whether the method can choose at all."""
    try:
        return bool(plan_of(run).drop)
    except InputError:
        return False


def searched(results: Results, variant: str, ratio: float) -> Iterator[Run]:
    """The runs of a search: the first method, seed 0, every learning rate of the variant."""
    local = best(results, "local", ratio)
    for rate in VARIANTS[variant].rates:
        yield Run(FIRST, ratio, 0, variant, rate=rate, local_rate=_local(variant, local))


def best(results: Results, variant: str, ratio: float) -> float:
    """The learning rate that did best on the rows to choose on; 0 where none was tried."""
    tried = {
        run: found.choosing
        for run, found in results.found.items()
        if (run.method, run.seed, run.variant, run.ratio, run.steps)
        == (FIRST, 0, variant, ratio, STEPS)
    }
    return max(tried, key=lambda run: (tried[run], -run.rate)).rate if tried else 0.0


def _local(variant: str, rate: float) -> float:
    return rate if 0 < VARIANTS[variant].local < 1 else 0.0


def compared(results: Results, variants: Sequence[str]) -> Iterator[Run]:
    """Every method, ratio, seed and variant at its chosen learning rate; then smaller sets."""
    for ratio in RATIOS:
        for method in METHODS:
            for seed in SEEDS:
                yield Run(method, ratio, seed, "pruned", steps=0)
                for variant in variants:
                    yield at_best(results, Run(method, ratio, seed, variant))


def by_samples(results: Results, variants: Sequence[str], n_rows: int) -> Iterator[Run]:
    """INTERLACE at a quarter of the layers after parts of the training set, read once."""
    for share in SHARES:
        for variant in variants:
            steps = max(1, round(share * n_rows / BATCH))
            yield at_best(results, Run(FIRST, 0.25, 0, variant, steps=steps))


def at_best(results: Results, run: Run) -> Run:
    """A run with the learning rates that were chosen for its variant and ratio."""
    local = _local(run.variant, best(results, "local", run.ratio))
    return replace(run, rate=best(results, run.variant, run.ratio), local_rate=local)


def carry_out(bench: Bench, results: Results, runs: Sequence[Run], what: str) -> None:
    """Measure what is not measured yet."""
    missing = [run for run in dict.fromkeys(runs) if run not in results.found and feasible(run)]
    for run in tqdm(missing, desc=what, unit="run"):
        results.add(run, bench.measure(run))


@click.command()
@click.option("--variant", "only", multiple=True, type=click.Choice([*VARIANTS]))
@click.option("--limit", type=int, help="Questions per source, to try it.")
@click.option("--one", is_flag=True, help="Stop after the search at 25%, to try it.")
def main(only: tuple[str, ...], limit: int | None, one: bool) -> None:
    """Run what is missing, then write docs/study-healing.{md,csv,png}."""
    there = importlib.util.find_spec("interlace.new_weights") is not None
    variants = [v for v in only or VARIANTS if there or not VARIANTS[v].compensated]
    results, bench = Results(SCRATCH / "runs.csv"), Bench(limit)
    for ratio in (0.25,) if one else RATIOS:
        for variant in variants:
            carry_out(bench, results, [*searched(results, variant, ratio)], f"search {variant}")
    if one:
        return
    carry_out(bench, results, [*compared(results, variants)], "compare")
    carry_out(bench, results, [*by_samples(results, variants, bench.n_rows)], "samples")
    dense = bench.scores(DENSE).heldout
    write_page(results, variants, dense, bench.n_rows, Path("docs"))
    click.echo("written: docs/study-healing.md, docs/study-healing.csv, docs/study-healing.png")


if __name__ == "__main__":
    main()
