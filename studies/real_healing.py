"""Ways to heal a pruned pretrained decoder, judged on prompts of packages that no training saw.

    make study-real-healing

Pruned models learn from the data's answers or from the dense model's own, in several ways, all from
the same prompts and as many tokens. Each way has the learning rate of least loss on validation
rows. Finished work stays in .scratch/study-real-healing by what it depends on, so a study that was
stopped resumes; models that the table has from the same data are not healed again either. Plans
come from the study of methods: its searched sets from its table, its measurements from its scratch
folder; what is missing is measured.
Writes docs/study-real-healing.md, its table and figure, and what it says into the README.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from interlace.plan.record import Plan, Tuned
from interlace.scores.table import SEARCH
from interlace.system import interruption
from studies import real_healing_bench as bench
from studies.processes import open_processes
from studies.real import SCRATCH as PLANS
from studies.real import SOURCE, TOKENS
from studies.real_bench import SIMILARITY
from studies.real_healing_inputs import ANSWERED, PURPOSES, Inputs, Sizes, prepare, write_labels
from studies.real_healing_page import NAME, write_pages
from studies.real_healing_plans import plan_of, searched_sets
from studies.real_healing_rows import Row, facts, published, rows_of
from studies.real_healing_runs import (
    CELLS,
    PRUNED,
    RATES_FROM,
    SEEDS,
    WAYS,
    Cell,
    Run,
    rates_of,
    ways_of,
)
from studies.real_inputs import prepare as prepare_plans

Task = Callable[[Inputs, Run, Plan], Run]
SCRATCH = Path(".scratch/study-real-healing")
PROCESSES = 2  # of one core each
SIZES = Sizes(prompt=96, answer=96, train=72, validation=16, heldout=32)
BAR = "{desc}: {n_fmt} of {total_fmt} models|{bar}| {elapsed}, {remaining} left"


class Study:
    """The processes that heal and score, and what they gave so far.

    Attributes:
        inputs: what the study reads.
        runs: all models so far, in order.
        known: rows of the table that is there already, by model.
        sets: the best sets of a search that the study of methods carried out, by ratio.
        docs: folder of the page.
        progress: bar over all models.
    """

    def __init__(self, inputs: Inputs, pool: Any, docs: Path, progress: Any) -> None:
        self.inputs, self.pool, self.docs, self.progress = inputs, pool, docs, progress
        self.runs: dict[Run, None] = {}
        self.facts = facts(inputs)
        self.known = published(inputs, docs / f"{NAME}.csv")
        self.sets = searched_sets(docs / "study-real.csv")
        self._plans: dict[tuple[Cell, Tuned], Plan] = {}

    def plan(self, run: Run) -> Plan:
        """Return the plan of a run's model."""
        tuned: Tuned = "planned" if run.way == PRUNED else WAYS[run.way].tuned
        key = run.cell, tuned
        if key not in self._plans:
            self._plans[key] = plan_of(self.inputs, *run.cell, tuned, self.sets)
        return self._plans[key]

    def validation(self, run: Run) -> float | None:
        """Return a model's loss per token on rows to choose by; `None` before it was scored."""
        losses = bench.Files(self.inputs, run, self.plan(run)).losses("validation", "own")
        known = self._published(run)
        return losses.mean if losses else known and known.validation

    def _published(self, run: Run) -> Row | None:
        """Return the row of a model in the table, unless layers were chosen differently."""
        row, plan = self.known.get(run), self.plan(run)
        return row if row and row.layers == (plan.drop, plan.tune) else None

    def _done(self, run: Run, task: Task) -> bool:
        """Return True if a model's numbers are there, in files or in the table."""
        row = self._published(run)
        number = row and (row.validation if task is bench.train else row.own)
        return number is not None or bench.done(self.inputs, run, self.plan(run), task)

    def at_best(self, run: Run) -> Run:
        """Return a run with the learning rate that its way is best at."""
        trials = list(search_of(run))
        losses = {trial: self.validation(trial) for trial in trials}
        best = min(trials, key=lambda trial: (losses[trial] is None, losses[trial], trial.rate))
        return Run(*run.cell, run.way, run.compensated, run.seed, best.rate)

    def carry_out(self, runs: Sequence[Run], task: Task) -> None:
        """Heal and score models that were not yet; write the page as they come."""
        self.runs |= dict.fromkeys(runs)
        pending = [run for run in runs if not self._done(run, task)]
        starts = {bench.Files(self.inputs, run, self.plan(run)).pruned: run for run in pending}
        for future in [self._submit(bench.prune, run) for run in starts.values()]:
            future.result()
        self.progress.initial += len(runs) - len(pending)
        self.progress.update(len(runs) - len(pending))
        for future in as_completed([self._submit(task, run) for run in pending]):
            future.result()
            self.progress.update()
            self.write()

    def _submit(self, task: Callable[..., Any], run: Run) -> Any:
        return self.pool.submit(task, self.inputs, run, self.plan(run))

    def forget(self, runs: Sequence[Run]) -> None:
        """Remove the tuned checkpoints of runs; their losses stay."""
        for run in runs:
            bench.remove_tuned(self.inputs, run, self.plan(run))

    def write(self) -> None:
        """Write the table and the page as far as the study is."""
        runs = {run: bench.Files(self.inputs, run, self.plan(run)) for run in self.runs}
        missing = self.progress.total - self.progress.n
        write_pages(rows_of(self.inputs, runs, self.known), self.facts, self.docs, missing)


def search_of(run: Run) -> Iterator[Run]:
    """Yield the runs that the learning rate of a run's way is chosen among."""
    for rate in rates_of(run):
        yield Run(*RATES_FROM[run.cell], run.way, run.compensated, rate=rate)


def starts_of(cells: Sequence[Cell]) -> list[Run]:
    """Return the models of some plans before healing."""
    return [Run(*cell, compensated=weights) for cell in cells for weights in (False, True)]


def healed(cells: Sequence[Cell], seed: int = 0) -> list[Run]:
    """Return the models of some plans after healing in each way; their learning rates are open."""
    return [
        Run(*cell, way, weights, seed)
        for cell in cells
        for weights in (False, True)
        for way in ways_of(cell)
    ]


def stages(cells: Sequence[Cell]) -> list[tuple[list[Run], list[Run]]]:
    """Return for each plan the runs of its search for learning rates, and those to judge."""
    return [
        (
            [trial for run in healed([cell]) for trial in search_of(run)]
            if RATES_FROM[cell] == cell
            else [],
            healed([cell]),
        )
        for cell in cells
    ]


def repeated() -> list[Run]:
    """Return the runs of further seeds, all plans of a way together; WAYS has the order.

    Ways that are tried on some plans alone have one seed.
    """
    runs = [run for seed in SEEDS[1:] for run in healed(CELLS, seed) if not WAYS[run.way].cells]
    return sorted(runs, key=lambda run: [*WAYS].index(run.way))


def carry_out(inputs: Inputs, pool: Any, docs: Path) -> None:
    """Write the dense model's answers, then heal and judge, what matters most first."""
    first = [pool.submit(bench.measure, inputs, SIMILARITY)]
    first += [pool.submit(bench.answer, inputs, *pair) for pair in ANSWERED]
    for future in first:
        future.result()
    for purpose in PURPOSES:
        write_labels(inputs, purpose)
    ends = (0, inputs.plans.n_layers - 1)  # as the method protects
    pool.submit(bench.judge_dense, inputs).result()
    cheap, searched = ([c for c in CELLS if (c[0] == SEARCH) == s] for s in (False, True))
    if {ratio for _, ratio in searched} - {*searched_sets(docs / "study-real.csv")}:
        searching = pool.submit(bench.measure, inputs, SEARCH, ends)
    else:
        searching = None
    total = sum(len(trials) + len(runs) for trials, runs in stages(CELLS))
    total += len(starts_of(CELLS)) + len(repeated())
    with tqdm(total=total, desc="healing", bar_format=BAR) as progress:
        study = Study(inputs, pool, docs, progress)
        for cells in (cheap, searched):
            if cells == searched and searching:
                searching.result()
            study.carry_out(starts_of(cells), bench.judge)
            for trials, runs in stages(cells):
                study.carry_out(trials, bench.train)
                study.carry_out([study.at_best(run) for run in runs], bench.judge)
                study.forget(trials)
        study.carry_out([study.at_best(run) for run in repeated()], bench.judge)
        study.write()


@click.command()
@click.option("--source", default=SOURCE, type=click.Path(path_type=Path), help="Folder of data.")
@click.option("--plans", default=PLANS, type=click.Path(path_type=Path), help="Scratch of plans.")
@click.option("--scratch", default=SCRATCH, type=click.Path(path_type=Path), help="Finished work.")
@click.option("--out", default="docs", type=click.Path(path_type=Path), help="Folder of the page.")
def main(source: Path, plans: Path, scratch: Path, out: Path) -> None:
    """Carry the study out, and write its page."""
    interruption.install()
    model, train, test = (source / name for name in ("model", "train.parquet", "test.parquet"))
    inputs = prepare(
        prepare_plans(model, train, test, plans, **TOKENS), train, test, scratch, SIZES
    )
    with open_processes(PROCESSES) as pool:
        carry_out(inputs, pool, out)
    click.echo(f"written: {out}/study-real-healing.md, its table and figure")


if __name__ == "__main__":
    main()
