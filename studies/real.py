"""Every method on a real pretrained decoder, before any tuning: the rise of the held-out loss.

    make study-real

Layers are chosen on training rows, and each choice is scored on held-out rows of other packages,
with and without compensation. Finished measurements stay in .scratch/study-real by what they
depend on, so a study that was stopped resumes. After a change to measuring itself, remove that
folder. Writes docs/study-real.md, its tables and figures, and what it says into
docs/study-methods.md, docs/methods.md and the README.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from interlace.scores.table import SEARCH, SLEB, TAYLOR, Scores
from interlace.system import interruption
from interlace.system.documents import read_json
from studies import real_bench
from studies.processes import open_processes
from studies.real_bench import SIMILARITY, SPARSE, Inputs
from studies.real_choices import COMPARED, choices, finalists, score_table
from studies.real_facts import facts, layer_rows
from studies.real_inputs import prepare
from studies.real_losses import HeldoutLosses
from studies.real_page import write_pages
from studies.real_rows import PLAIN, RERANKED, Row, Variant, scored, write_rows
from studies.real_rules import RULES

SOURCE, SCRATCH = Path("data/smollm2"), Path(".scratch/study-real")
BAR = "{desc}: {percentage:3.0f}% of the work|{bar}| {elapsed}, {remaining} left"
PROCESSES = 2  # of one core each
TOKENS = {
    "heldout_tokens": 8_000,
    "calibration_tokens": 16_000,
    "loss_tokens": 1_000,
    "search_tokens": 3_200,
    "fitted_tokens": 3_000,
}
FITTING = 2.0  # work of new weights beside scoring, in passes of the dense model
DECODER_SHARE = 0.8  # of a pass's work, the rest is the head
COMPENSATED_DRAWS = 2  # of `random`
RERANKED_RATIOS = (0.25, 0.4)
FINALISTS = 3  # sets of the search at a ratio that are compensated
FEW_RATIOS = (0.25,)
ORDER = (0.25, 0.4, 0.1)  # of scoring
FEW = (  # choices that all rules of compensation are tried on
    ("interlace", "auto"),
    (SEARCH, "none"),
)


class Study:
    """The processes that measure and score, and what they gave so far.

    Attributes:
        inputs: what the study reads.
        rows: choices, each with a model to score.
        losses: by model.
    """

    def __init__(self, inputs: Inputs, pool: Any) -> None:
        self.inputs, self.pool = inputs, pool
        self.rows: list[Row] = []
        self.losses: dict[Variant, HeldoutLosses] = {}

    def measure(self, criterion: str, protected: Sequence[int] = ()) -> Future[None]:
        """Begin a measurement of the dense model."""
        future: Future[None] = self.pool.submit(real_bench.measure_once, criterion, protected)
        return future

    def scores(self, criteria: Sequence[str]) -> Scores:
        """Return the similarity of layers, and some criteria of the loss."""
        folders = {name: real_bench.measured(self.inputs, name) for name in criteria}
        return score_table(real_bench.measured(self.inputs, SIMILARITY), folders)

    def score(self, rows: Sequence[Row], name: str) -> None:
        """Score the models of rows, and add the rows."""
        self.rows += [row for row in rows if row not in self.rows]
        self.score_models([row.variant for row in rows if not row.reason], name)

    def score_models(self, variants: Sequence[Variant], name: str) -> None:
        """Score models that were not scored yet, each once."""
        pending = [variant for variant in dict.fromkeys(variants) if not self._read(variant)]
        total = sum(map(self.cost, pending))
        label = f"{name}: {len(pending)} models"
        with tqdm(total=total, desc=label, bar_format=BAR, disable=not pending) as progress:
            for future in as_completed([self.pool.submit(real_bench.score, v) for v in pending]):
                self._read(variant := future.result())
                progress.update(self.cost(variant))

    def _read(self, variant: Variant) -> bool:
        losses = self.inputs.losses(variant)
        if losses is not None:
            self.losses[variant] = losses
        return losses is not None

    def announce(self, rows: Sequence[Row]) -> None:
        """Print how long it will take to score rows, once the dense model was timed."""
        timed = real_bench.seconds(self.inputs.losses_file(Variant())) or 0.0
        pending = {row.variant for row in rows if not row.reason} - self.losses.keys()
        pending = {variant for variant in pending if not self._read(variant)}
        minutes = timed * sum(map(self.cost, pending)) / 100 / PROCESSES / 60
        click.echo(
            f"study: {len(pending)} models to score, about {minutes:.0f} minutes, then search"
        )

    def cost(self, variant: Variant) -> int:
        """Estimate the work behind a model's losses, percent of a pass of the dense model."""
        passes = 1 - DECODER_SHARE * len(variant.drop) / self.inputs.n_layers
        return round(100 * (passes if variant.weights == PLAIN else passes + FITTING))

    def write(self, docs: Path) -> None:
        """Write the tables and pages as far as the study is."""
        rows, layers = scored(self.rows, self.losses), layer_rows(self.inputs)
        write_rows(rows, docs / "study-real.csv", Row)
        write_pages(rows, layers, facts(self.inputs, self.losses), docs)


def compensated(rows: Iterable[Row], rule: str = RULES[0]) -> list[Row]:
    """Return rows with the same layers dropped and the other weights compensated."""
    return [replace(row, weights=rule) for row in rows if not row.reason and row.dropped]


def reranked(study: Study, rows: Sequence[Row]) -> list[Row]:
    """Choose among the best sets of the search by the loss on calibration after compensation."""
    best = []
    for row in rows:
        if row.reason or row.protect != "none" or row.ratio not in RERANKED_RATIOS:
            continue
        folder = real_bench.measured(study.inputs, SEARCH)
        sets = finalists(folder, len(row.dropped), FINALISTS)
        variants = [Variant(drop, RULES[0]) for drop in sets]
        study.score_models(variants, f"{RERANKED}, {row.ratio:.0%}")
        losses = {v: read_json(study.inputs.fit_file(v)) for v in variants}
        best.append(
            replace(row, method=RERANKED, dropped=min(variants, key=losses.__getitem__).drop)
        )
    return best


def carry_out(study: Study, docs: Path) -> None:
    """Measure, choose and score, what matters most first; write the page in between."""
    for future in [study.measure(name) for name in (SLEB, SIMILARITY, TAYLOR)]:
        future.result()
    scores = study.scores((SLEB, TAYLOR))
    searching = study.measure(SEARCH, (0, scores.n_layers - 1))  # as the method protects
    cheap = choices(scores, [name for name in COMPARED if name != SEARCH])
    cheap.sort(key=lambda row: ORDER.index(row.ratio))
    chosen = [row for row in cheap if row.method != "random"]
    drawn = [row for row in cheap if row.method == "random"]
    study.score([Row("dense", 0.0)], "dense")
    study.announce([*cheap, *compensated(chosen)])
    study.score(chosen, "methods")
    study.write(docs)
    first, *others = ([row for row in chosen if row.ratio == ratio] for ratio in ORDER)
    study.score(compensated(first), f"compensated, {ORDER[0]:.0%}")
    study.write(docs)
    for rows, ratio in zip(others, ORDER[1:], strict=True):
        study.score(compensated(rows), f"compensated, {ratio:.0%}")
        study.write(docs)
    searching.result()
    searched = choices(study.scores([SEARCH]), [SEARCH])
    study.score([*searched, *compensated(searched)], "search")
    study.write(docs)
    again = reranked(study, searched)
    study.score([*again, *compensated(again)], RERANKED)
    study.score(drawn, "random draws")
    study.score([Row(name, 0.0, weights=name) for name in SPARSE], "2:4 sparsity")
    study.write(docs)
    few = [row for row in (*chosen, *searched) if (row.method, row.protect) in FEW]
    few = [row for row in few if row.ratio in FEW_RATIOS]
    study.score([row for rule in RULES[1:] for row in compensated(few, rule)], "rules")
    few = [row for row in drawn if row.protect == "none" and row.ratio in FEW_RATIOS]
    study.score(compensated(few[:COMPENSATED_DRAWS]), "compensated draws")
    study.write(docs)


@click.command()
@click.option("--source", default=SOURCE, type=click.Path(path_type=Path), help="Folder of data.")
@click.option("--scratch", default=SCRATCH, type=click.Path(path_type=Path), help="Finished work.")
@click.option("--out", default="docs", type=click.Path(path_type=Path), help="Folder of the page.")
@click.option("--tokens", type=int, help="Held-out answer tokens; few for a trial.")
def main(source: Path, scratch: Path, out: Path, tokens: int | None) -> None:
    """Carry the study out, and write its page."""
    interruption.install()
    model, train, test = (source / name for name in ("model", "train.parquet", "test.parquet"))
    sizes = TOKENS | ({"heldout_tokens": tokens} if tokens else {})
    inputs = prepare(model, train, test, scratch, **sizes)
    with open_processes(PROCESSES, initializer=real_bench.begin, initargs=(inputs,)) as pool:
        carry_out(Study(inputs, pool), out)
    click.echo(f"written: {out}/study-real.md and its tables and figures")


if __name__ == "__main__":
    main()
