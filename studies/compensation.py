"""Compensation and 2:4 sparsity on the demo before any tuning: scores and costs.

    make study-compensation

A separate process exports each checkpoint, so that its peak memory can be read; then the checkpoint
answers the demo's held-out benchmarks. Writes docs/compensation.md.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import click
import torch
from tqdm import tqdm

from benchmarks.peak_memory import peak_mib
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.evaluation.run.evaluate import evaluate_checkpoint
from interlace.evaluation.scores.retention import overall_error, overall_score
from interlace.params.whole import Params, read_params
from interlace.plan.record import Plan
from interlace.pruning.report import CutReport
from interlace.scores.table import read_scores
from interlace.selection.select import select_layers

RATIOS = (0.1, 0.25, 0.4)
METHODS = ("interlace", "interlace-optimal", "consecutive")
SPARSE = ("wanda-2:4", "magnitude-2:4")
SCORES, CALIBRATION = Path("artifacts/scores.parquet"), Path("data/calibration")
Score = tuple[float, float]  # percent, and its standard error


@dataclass(frozen=True)
class ScoredCheckpoint:
    """A checkpoint's score, its cuts, and the seconds and peak MiB of its export."""

    score: Score
    cuts: Sequence[CutReport]
    seconds: float
    mib: float


def plan_of(params: Params, method: str, ratio: float) -> Plan:
    """Select the layers that a method drops, a share of all layers as in the study of methods."""
    options = params.select.model_copy(update={"base": "all"})
    return select_layers(read_scores(SCORES), method, ratio, options, seed=params.seed)


def export_one(params: Params, plan: Plan, compensate: str, out: Path) -> tuple[Any, float, float]:
    """Export a checkpoint in this process; return its cuts, seconds and peak MiB."""
    from interlace.pruning.dense import Dense
    from interlace.pruning.export import export_checkpoint
    from interlace.pruning.new_weights import new_weights

    model = Path(params.model.id)
    options = params.export.model_copy(update={"compensate": compensate})
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        dense = Dense(Checkpoint(model), CALIBRATION, params.answer_options)
        replaced, report = new_weights(dense, plan, options, Path(scratch))
        seconds = time.perf_counter() - begin
        export_checkpoint(model, plan, out, replaced=replaced)
    return report.compensation.cuts if report.compensation else [], seconds, peak_mib()


def score_of(params: Params, model: Path) -> Score:
    """Return the mean score over the held-out benchmarks in percent, and its standard error."""
    options = {"params": params.evaluate, "dtype": params.dtype}
    scores = evaluate_checkpoint(Checkpoint(model), model_name=model.name, **options).scores
    return overall_score(scores) or 0.0, overall_error(scores) or 0.0


def scored_checkpoint(
    params: Params, plan: Plan, compensate: Literal["none", "lstsq"]
) -> ScoredCheckpoint:
    """Export a checkpoint in a fresh process, and score it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "pruned"
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            cuts, seconds, mib = process.submit(export_one, params, plan, compensate, out).result()
        return ScoredCheckpoint(score_of(params, out), cuts, seconds, mib)


def rows(params: Params, ratios: Sequence[float], dense: Score) -> tuple[list[str], list[str]]:
    """Return the table of scores and the table of costs."""
    scores, cuts = [], []
    cases = [(method, ratio) for method in METHODS for ratio in ratios]
    for method, ratio in tqdm(cases, unit="case", desc="compensation"):
        try:
            plan = plan_of(params, method, ratio)
        except InputError as error:
            scores.append(f"| `{method}` | {100 * ratio:g}% | not feasible: {error} | | | |")
            continue
        plain, repaired = (
            scored_checkpoint(params, plan, "none"),
            scored_checkpoint(params, plan, "lstsq"),
        )
        kept_weights = sum(cut.kept for cut in repaired.cuts)
        scores.append(
            f"| `{method}` | {100 * ratio:g}% | {' '.join(map(str, plan.drop))}"
            f" | {_retained(plain.score, dense)} | {_retained(repaired.score, dense)}"
            f" | {kept_weights} of {len(repaired.cuts)} |"
        )
        cuts.append(
            f"| `{method}` | {100 * ratio:g}% | {len(repaired.cuts)} | {repaired.seconds:.0f}"
            f" | {repaired.mib:.0f} | {plain.mib:.0f} |"
        )
    return scores, cuts


def _retained(model: Score, dense: Score) -> str:
    (score, error), (dense_score, _) = model, dense
    return f"{score:.1f} ± {error:.1f} ({100 * score / dense_score:.1f}%)"


def page(params: Params, ratios: Sequence[float]) -> str:
    """Measure, and write the page's text."""
    dense = score_of(params, Path(params.model.id))
    scores, cuts = rows(params, ratios, dense)
    zeroed = {
        name: scored_checkpoint(params, plan_of(params, name, 0.25), "none").score
        for name in SPARSE
    }
    sparse = [f"| `{name}` | {_retained(score, dense)} |" for name, score in zeroed.items()]
    machine = f"torch {torch.__version__}, {os.cpu_count()} cores"
    samples = params.export.compensate_samples
    return "\n".join(
        [
            "# Compensation for dropped layers, and 2:4 sparsity, on the demo\n",
            "Scores are percent of exact answers on the demo's held-out benchmarks before tuning;",
            f"brackets are percent of the dense model's {dense[0]:.1f}. ± is one standard error.",
            "`make study-compensation` repeats the study.\n",
            "| method | ratio | dropped | plain | compensated | weights kept |",
            "|---|---:|---|---:|---:|---:|",
            *scores,
            "\n## Cost\n",
            f"Compensation uses at most {samples} calibration rows ({machine}).",
            "Memory is the peak of the whole process, with and without compensation.\n",
            "| method | ratio | layers fitted | seconds | MiB | MiB without |",
            "|---|---:|---:|---:|---:|---:|",
            *cuts,
            "\n## 2:4 sparsity\n",
            "| method | score |",
            "|---|---:|",
            *sparse,
            "",
        ]
    )


@click.command()
@click.option("--samples", type=int, help="Calibration rows to fit on; few for a trial.")
@click.option("--limit", type=int, help="Rows per benchmark; few for a trial.")
@click.option("--ratio", "ratios", type=float, multiple=True, help="Ratio to study. Repeatable.")
@click.option("--out", default="docs/compensation.md", type=click.Path(path_type=Path))
def main(samples: int | None, limit: int | None, ratios: tuple[float, ...], out: Path) -> None:
    """Measure, print and write docs/compensation.md."""
    params = read_params(Path("params.yaml"))
    count = samples or params.export.compensate_samples
    params = params.model_copy(
        update={
            "export": params.export.model_copy(update={"compensate_samples": count}),
            "evaluate": params.evaluate.model_copy(update={"limit": limit}),
        }
    )
    text = page(params, ratios or RATIOS)
    out.write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
