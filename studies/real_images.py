"""Every method on a pretrained decoder that sees images, before tuning, and some after healing.

    make study-real-images

The model is SmolLM2-135M-Instruct with eyes (data/smolvlm), on the demo's images and questions.
Layers are chosen on training rows, math and other probes among them; models are judged on held-out
questions, by the loss on the answers and by exact match. Finished work stays in
.scratch/study-real-images by what it depends on, so a study that was stopped resumes. Writes
docs/study-real-images*.csv and .png, and the section about images in docs/study-real.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
from tqdm import tqdm

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.data.probes import read_tasks, write_probes
from interlace.errors import InputError
from interlace.model.chat import encode_training
from interlace.params.inputs import Probes
from interlace.samples.answered_rows import answer_tokens
from interlace.samples.rows import iterate
from interlace.scores.table import SEARCH, SLEB, TAYLOR, Scores
from interlace.system import interruption
from studies import real_bench
from studies.processes import open_processes
from studies.real import PROCESSES, Study, compensated
from studies.real_bench import SIMILARITY, Inputs
from studies.real_choices import RULES, SINGLE, choices, plan_of
from studies.real_facts import layer_rows
from studies.real_images_healing import (
    COMPENSATED,
    STARTS,
    WAYS,
    Run,
    answer,
    forget,
    heal,
    judge,
    labels,
    validation_loss,
    write_training_rows,
)
from studies.real_images_page import DOMAINS, OWN_DOMAIN, Facts, write_pages
from studies.real_images_page import Study as Shown
from studies.real_images_rows import ImageRow, contrasts, judged, read_heldout
from studies.real_images_sinks import SinkRow, sink_rows
from studies.real_inputs import SEED, prepare
from studies.real_rows import Row, Variant

MODEL, DATA = Path("data/smolvlm/model"), Path("data/demo")
SCRATCH = Path(".scratch/study-real-images")
RATIOS = (0.25, 0.1)  # in the order of scoring
TOKENS = {  # of answers: a few to each row
    "heldout_tokens": 1_000,
    "calibration_tokens": 1_500,
    "loss_tokens": 250,
    "search_tokens": 250,
    "fitted_tokens": 1_500,
}
PROBES = Probes(
    per_task=20,
    math_sources=("digit_sum", "digit_two_step", "bar_difference"),
    nonmath_sources=("digit_read", "bar_compare", "shape_count"),
)
BY_LOSS = (SLEB, SEARCH, SINGLE)
Cell = tuple[str, float, str]  # a method, a ratio, and protection
Task = Callable[[Inputs, Run], Run]
HEALED: tuple[Cell, ...] = (  # choices that are healed, what matters most first
    ("interlace", 0.25, "none"),
    (SEARCH, 0.25, "none"),
    ("interlace", 0.1, "none"),
    ("interlace", 0.25, "auto"),
    (SEARCH, 0.1, "none"),
    ("math-aware", 0.25, "none"),
)


def prepare_images(
    model: Path, data: Path, scratch: Path, tokens: dict[str, int], probes: Probes
) -> Inputs:
    """Draw the rows, and pair images of the calibration set with math and other tasks.

    Args:
        model: the dense checkpoint.
        data: folder of train.parquet and test.parquet.
        scratch: folder of the study.
        tokens: sizes, see `prepare`.
        probes: see `write_probes`.
    """
    inputs = prepare(model, data / "train.parquet", data / "test.parquet", scratch, **tokens)
    folder = inputs.scratch / f"probes-{probes.per_task}"
    if not folder.is_dir():
        tasks = read_tasks(Path(probes.prompts))
        write_probes(inputs.calibration, folder, tasks, probes=probes, seed=SEED)
    write_training_rows(inputs, data / "train.parquet")
    return replace(inputs, probes=folder, max_ratio=max(RATIOS))


class ImageStudy(Study):
    """The study of methods, with exact answers and healed models.

    Attributes:
        healed: models that are healed, and what they start from, by row.
        sinks: the longest tokens of each layer, once these are measured.
    """

    def __init__(self, inputs: Inputs, pool: Any) -> None:
        super().__init__(inputs, pool)
        self.healed: dict[ImageRow, Run] = {}
        self.sinks: list[SinkRow] = []
        checkpoint = Checkpoint(inputs.model)
        self.processor = checkpoint.open_processor()
        self.heldout = read_heldout(inputs.heldout, self.processor)
        self.trained_tokens = sum(
            answer_tokens(encode_training(self.processor, row)["labels"])
            for row in iterate(labels(inputs))
        )

    def heal(self, scores: Scores, cells: Sequence[Cell], docs: Path) -> None:
        """Heal models in all ways, what matters most first; write the page as they come.

        Each way has the learning rate of least validation loss on the first of the models.
        """
        plans = {cell: plan_of(scores, *cell) for cell in cells}
        first = plans[cells[0]]
        trials = [Run(first, way, rate) for way in WAYS for rate in WAYS[way].rates]
        starts = [Run(first, way) for way in STARTS]
        self._heal(heal, [(cells[0], run) for run in (*starts, *trials)], docs)
        best = [self._at_best([run for run in trials if run.way == way]) for way in WAYS]
        for run in trials:
            if run not in best:
                forget(self.inputs, run)
        runs = [(cell, replace(run, plan=plans[cell])) for cell in cells for run in best]
        self._heal(judge, runs, docs)

    def _at_best(self, trials: Sequence[Run]) -> Run:
        return min(trials, key=lambda run: (validation_loss(self.inputs, run), run.rate))

    def _heal(self, task: Task, runs: Sequence[tuple[Cell, Run]], docs: Path) -> None:
        """Carry out a task for all runs, once for each model."""
        for cell, run in runs:
            row = ImageRow(*cell, weights=run.way, dropped=run.variant.drop, rate=run.rate)
            self.healed[row] = run
        once = {run.variant: run for _, run in runs}
        futures = [self.pool.submit(task, self.inputs, run) for run in once.values()]
        named = {"total": len(futures), "desc": task.__name__, "unit": "model"}
        for future in tqdm(as_completed(futures), **named):
            future.result()
            self.write(docs)

    def _validation(self, row: ImageRow) -> float | None:
        run = self.healed.get(row)
        return run and validation_loss(self.inputs, run)

    def write(self, docs: Path) -> None:
        """Write the tables, the figure and the section as far as the study is."""
        for row in self.healed:
            self._read(row.variant)
        once = dict.fromkeys([*(ImageRow(**vars(row)) for row in self.rows), *self.healed])
        rows = [replace(row, validation=self._validation(row)) for row in once]
        inputs, heldout, dense = self.inputs, self.heldout, self.losses[Variant()]
        if not self.sinks:
            measured = real_bench.measured(inputs, SIMILARITY)
            self.sinks = list(sink_rows(measured, inputs.calibration, self.processor))
        facts = Facts(
            n_layers=inputs.n_layers,
            heldout=(len(dense.loss), int(dense.n_tokens.sum())),
            dense_loss=dense.mean,
            prompts=row_count(inputs.calibration),
            probes=row_count(inputs.probes) if inputs.probes else 0,
            loss_rows=inputs.loss_rows,
            fitted_rows=inputs.fitted_rows,
            trained_tokens=self.trained_tokens,
        )
        shown = Shown(
            rows=judged(rows, self.losses, heldout),
            contrasts=contrasts(rows, self.losses, heldout, (OWN_DOMAIN, *DOMAINS)),
            layers=layer_rows(inputs),
            sinks=self.sinks,
            facts=facts,
        )
        write_pages(shown, docs)


def row_count(folder: Path) -> int:
    """Return the number of rows in a folder."""
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


def feasible(scores: Scores, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that have a plan."""
    found = []
    for cell in cells:
        try:
            plan_of(scores, *cell)
        except InputError:
            continue
        found.append(cell)
    return found


def carry_out(study: ImageStudy, docs: Path) -> None:
    """Measure, choose, score and heal, what matters most first; write the page in between."""
    answering = study.pool.submit(answer, study.inputs)
    for future in [study.measure(name) for name in (SIMILARITY, TAYLOR)]:
        future.result()
    scores = study.scores([TAYLOR])
    cheap = choices(scores, [name for name in RULES if name not in BY_LOSS], RATIOS)
    cheap.sort(key=lambda row: (RATIOS.index(row.ratio), row.method == "random"))
    study.score([Row("dense", 0.0)], "dense")
    for ratio in RATIOS:
        study.score([row for row in cheap if row.ratio == ratio], f"methods, {ratio:.0%}")
    study.write(docs)
    ends = (0, scores.n_layers - 1)  # as the method protects
    for future in [study.measure(SLEB), study.measure(SEARCH, ends)]:
        future.result()
    scores = study.scores([TAYLOR, SLEB, SEARCH])
    study.score(choices(scores, BY_LOSS, RATIOS), "methods by loss")
    study.write(docs)
    answering.result()
    cells = feasible(scores, HEALED)
    starts = [row for row in study.rows if (row.method, row.ratio, row.protect) in cells]
    study.score(compensated(starts, COMPENSATED), "compensated")
    study.heal(scores, cells, docs)


@click.command()
@click.option("--model", default=MODEL, type=click.Path(path_type=Path), help="Dense checkpoint.")
@click.option("--data", default=DATA, type=click.Path(path_type=Path), help="Folder of rows.")
@click.option("--scratch", default=SCRATCH, type=click.Path(path_type=Path), help="Finished work.")
@click.option("--out", default="docs", type=click.Path(path_type=Path), help="Folder of the page.")
def main(model: Path, data: Path, scratch: Path, out: Path) -> None:
    """Carry the study out, and write its tables and its section."""
    interruption.install()
    inputs = prepare_images(model, data, scratch, TOKENS, PROBES)
    with open_processes(PROCESSES, initializer=real_bench.begin, initargs=(inputs,)) as pool:
        carry_out(ImageStudy(inputs, pool), out)
    click.echo(f"written: the section about images in {out}/study-real.md, and its tables")


if __name__ == "__main__":
    main()
