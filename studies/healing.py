"""Scores that each way of healing recovers after pruning, on the demo.

    make study-healing

Each run is a row of docs/study-healing.csv. A study that was stopped resumes: runs in that file are
skipped. After a change to healing itself, begin with an empty file. Each way has the learning rate
that scores best with seed 0, for each method at 25% and at 40%. Runs are scored on the held-out
questions, and on training rows that no run trains on. Writes study-healing.md and .png, too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import click
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

import interlace
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.healing.heal import heal_checkpoint
from interlace.model.open import open_model, open_processor
from interlace.params.exporting import Export
from interlace.params.healing import Finetune
from interlace.params.measuring import Sensitivity
from interlace.params.section import merged
from interlace.plan.record import Plan, Tuned
from interlace.pruning.dense import Dense
from interlace.pruning.export import export_checkpoint
from interlace.pruning.new_weights import new_weights
from studies.healing_page import FIRST, SEARCHED, SHARE_RATES, searched_at, write_page
from studies.healing_scores import STEPS, HealedScore, Results, Run
from studies.heldout_score import Question, heldout_score, questions
from studies.laptop import LAPTOP
from studies.processes import open_processes

DENSE, SCORES = Path("data/demo/model"), Path("artifacts/scores.parquet")
RESULTS = Path("docs/study-healing.csv")
SCRATCH = Path(".scratch/study-healing")
RATIOS = (0.25, 0.4, 0.1)
METHODS = (FIRST, "consecutive", "random")
SEEDS = (0, 1)
BATCH = 32  # rows of an update
SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the training set
SCORED_EVERY = 60  # every 60th training row is scored, not trained on
LOCAL_RATES = (3e-3, 1e-3, 1e-2)
END_TO_END_RATES = (5e-5, 1e-4, 2.5e-4, 2e-5, 5e-4)
OTHER_RATES = (2e-5, 1e-4)  # of the recipe on other layers
ADAPTER_RATES = (2.5e-4, 1e-3)


@dataclass(frozen=True)
class Variant:
    """A way to heal.

    Attributes:
        local: share of updates made layer by layer.
        compensated: True to start from compensated weights.
        distilled: True to distil from the dense model.
        tuned: layers to tune.
        lora_rank: of adapters; 0: full weights.
    """

    local: float = 0.0
    compensated: bool = False
    distilled: bool = False
    tuned: Tuned = "planned"
    lora_rank: int = 0

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates to search: of local healing for purely local variants."""
        if self.lora_rank:
            return ADAPTER_RATES
        if self.tuned != "planned":
            return OTHER_RATES
        return LOCAL_RATES if self.local == 1 else END_TO_END_RATES


VARIANTS = {  # local first: others start from its learning rate
    "local": Variant(local=1.0),
    "recipe": Variant(),
    "compensated, then recipe": Variant(compensated=True),
    "distilled": Variant(distilled=True),
    "compensated, distilled": Variant(compensated=True, distilled=True),
    "all": Variant(local=0.5, compensated=True, distilled=True),
}
OTHERS = {  # the recipe on other layers, or by adapters; at 25% alone
    "spaced layers": Variant(tuned="spaced"),
    "anchors": Variant(tuned="anchors"),
    "every layer": Variant(tuned="all"),
    "adapters": Variant(lora_rank=32),
}
WAYS = VARIANTS | OTHERS | {"pruned": Variant()}


class Bench:
    """The demo's training rows without the scored ones, and both sets to score."""

    def __init__(self, limit: int | None = None) -> None:
        self.processor = open_processor(DENSE)
        self.train = SCRATCH / "train"
        self.training_mix = questions(SCRATCH / "kept.parquet", self.processor, limit)
        self.heldout = questions(Path("data/demo/test.parquet"), self.processor, limit)

    def scores(self, folder: Path) -> HealedScore:
        """Score a checkpoint on both sets."""
        model = open_model(folder)

        def of(prompts: list[Question]) -> float:
            return heldout_score(model, self.processor, prompts, batch_size=64, max_new_tokens=12)

        return HealedScore(of(self.heldout), of(self.training_mix))

    def measure(self, run: Run) -> HealedScore:
        """Heal and score the checkpoint that `prune` wrote."""
        if run.variant == "pruned":
            return self.scores(pruned_folder(run))
        work = SCRATCH / f"work-{os.getpid()}"
        shutil.rmtree(work, ignore_errors=True)
        heal_checkpoint(
            Checkpoint(DENSE),
            Checkpoint(pruned_folder(run)),
            self.train,
            work / "tuned",
            (work / "local.csv", work / "loss.csv"),
            plan=plan_of(run),
            params=recipe(run),
            seed=run.seed,
            scratch=work / "scratch",
        )
        score = self.scores(work / "tuned")
        shutil.rmtree(work)
        return score


def split_rows() -> int:
    """Split the training rows into rows to train on and rows to score; count the former."""
    rows = pq.read_table("data/train")
    scored = [row for row in range(len(rows)) if row % SCORED_EVERY == 0]
    trained = [row for row in range(len(rows)) if row % SCORED_EVERY]
    (SCRATCH / "train").mkdir(parents=True, exist_ok=True)
    pq.write_table(rows.take(trained), SCRATCH / "train/part-00000.parquet")
    pq.write_table(rows.take(scored), SCRATCH / "kept.parquet")
    return len(trained)


def pruned_folder(run: Run) -> Path:
    """Return the folder of a run's pruned checkpoint, which similar runs share."""
    compensated = WAYS[run.variant].compensated
    plan = plan_of(run)
    names = ["-".join(map(str, layers)) for layers in (plan.drop, plan.tune)]
    return SCRATCH / "pruned" / "_".join([*names, "lstsq" if compensated else "plain"])


def prune(run: Run) -> None:
    """Write the pruned checkpoint that a run starts from, unless it exists."""
    folder, plan, replaced = pruned_folder(run), plan_of(run), {}
    if folder.is_dir():
        return
    if WAYS[run.variant].compensated:
        dense = Dense(Checkpoint(DENSE), Path("data/calibration"), Sensitivity())
        weights = SCRATCH / "compensation" / folder.name
        replaced, _ = new_weights(dense, plan, Export(compensate="lstsq"), weights)
    folder.parent.mkdir(parents=True, exist_ok=True)
    export_checkpoint(DENSE, plan, folder, replaced=replaced)


def plan_of(run: Run) -> Plan:
    """Select the layers of a run; those of `random` depend on its seed."""
    tuned = WAYS[run.variant].tuned
    return interlace.select(SCORES, method=run.method, ratio=run.ratio, seed=run.seed, tuned=tuned)


def recipe(run: Run) -> Finetune:
    """Return the demo's recipe with the changes of the run's variant."""
    variant = WAYS[run.variant]
    local = round(variant.local * run.steps)
    return merged(
        Finetune,
        LAPTOP,
        max_steps=run.steps - local,
        learning_rate=run.rate,
        local_steps=local,
        local_learning_rate=run.rate if variant.local == 1 else run.local_rate or 1e-3,
        distill_logits=float(variant.distilled),
        distill_states=float(variant.distilled),
        lora_rank=variant.lora_rank,
        batch_size=BATCH,
        micro_batch_size=BATCH,
        max_length=2048,
    )


def feasible(run: Run) -> bool:
    """Test if the method can select layers at the ratio."""
    try:
        return bool(plan_of(run).drop)
    except InputError:
        return False


def searched(results: Results, variant: str, ratio: float, method: str = FIRST) -> Iterator[Run]:
    """Yield the runs of a search: seed 0, the variant's learning rates; of many every second."""
    local = _local(variant, best(results, "local", ratio, method))
    rates = WAYS[variant].rates
    for rate in rates if method == FIRST or len(rates) < 4 else rates[::2]:
        yield Run(method, ratio, 0, variant, rate=rate, local_rate=local)


def best(results: Results, variant: str, ratio: float, method: str) -> float:
    """Return the learning rate that scored best; 0 before any search."""
    trials = {
        run: score.heldout
        for run, score in results.scores.items()
        if (run.method, run.seed, run.variant, run.ratio, run.steps)
        == (method, 0, variant, searched_at(ratio), STEPS)
    }
    return max(trials, key=lambda run: (trials[run], -run.rate)).rate if trials else 0.0


def _local(variant: str, rate: float) -> float:
    return rate if 0 < WAYS[variant].local < 1 else 0.0


def comparison(results: Results, variants: Sequence[str], ratio: float, seed: int) -> Iterator[Run]:
    """Yield each method and variant at its best learning rate."""
    for method in METHODS:
        yield Run(method, ratio, seed if method == "random" else 0, "pruned", steps=0)
        for variant in variants:
            yield at_best(results, Run(method, ratio, seed, variant))


def by_samples(n_rows: int) -> Iterator[Run]:
    """Yield INTERLACE at 25% after shares of the training set."""
    for share in SHARES:
        for variant, rate in SHARE_RATES.items():
            yield Run(FIRST, 0.25, 0, variant, steps=int(share * n_rows / BATCH), rate=rate)


def other_ways(results: Results) -> Iterator[Run]:
    """Yield INTERLACE at 25%, healed in the other ways."""
    for variant in OTHERS:
        for seed in SEEDS:
            yield at_best(results, Run(FIRST, 0.25, seed, variant))


def at_best(results: Results, run: Run) -> Run:
    """Return a run with the best learning rates of its variant near its ratio."""
    local = _local(run.variant, best(results, "local", run.ratio, run.method))
    rate = best(results, run.variant, run.ratio, run.method)
    return replace(run, rate=rate, local_rate=local)


def stages(
    results: Results, variants: Sequence[str], n_rows: int
) -> Iterator[tuple[str, list[Run]]]:
    """Yield the study's stages in order; each depends on the results of earlier ones."""
    cells = [(ratio, method) for ratio in SEARCHED for method in METHODS]
    for group in (["local"], [name for name in variants if name != "local"]):
        searches = [(variant, *cell) for cell in cells for variant in group]
        yield "search", [run for search in searches for run in searched(results, *search)]
    for seed in SEEDS:
        for ratio in SEARCHED if seed else RATIOS:
            label = f"{100 * ratio:g}%, seed {seed}"
            yield label, [*comparison(results, variants, ratio, seed)]
    yield "samples", [*by_samples(n_rows)]
    yield "search", [run for other in OTHERS for run in searched(results, other, 0.25)]
    yield "other ways", [*other_ways(results)]


def carry_out(pool: ProcessPoolExecutor, results: Results, runs: Sequence[Run], label: str) -> None:
    """Measure unfinished runs; append a row to the results when each ends."""
    missing = [run for run in dict.fromkeys(runs) if run not in results.scores and feasible(run)]
    for run in missing:
        prune(run)
    run_by_future = {pool.submit(_measure, run): run for run in missing}
    for future in tqdm(
        as_completed(run_by_future), total=len(run_by_future), desc=label, unit="run"
    ):
        results.add(run_by_future[future], future.result())


def _open_bench(limit: int | None) -> None:
    global _bench
    torch.set_num_threads(1)
    _bench = Bench(limit)


def _measure(run: Run) -> HealedScore:
    return _bench.measure(run)


@click.command()
@click.option("--limit", type=int, help="Questions per source; few for a trial.")
@click.option("--workers", default=2, help="Processes, with one thread each.")
def main(limit: int | None, workers: int) -> None:
    """Run what docs/study-healing.csv lacks; write study-healing.md and .png beside it."""
    variants, results = [*VARIANTS], Results(RESULTS)
    n_rows = split_rows()
    bench = Bench(limit)
    dense, n_questions = bench.scores(DENSE).heldout, len(bench.heldout)
    with open_processes(workers, initializer=_open_bench, initargs=(limit,)) as pool:
        for label, runs in stages(results, variants, n_rows):
            carry_out(pool, results, runs, label)
            write_page(results, variants, [*OTHERS], dense, n_questions, n_rows, RESULTS.parent)
    click.echo(f"written: {RESULTS}, and study-healing.md and .png beside it")


if __name__ == "__main__":
    main()
