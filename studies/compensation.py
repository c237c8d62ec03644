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
from interlace.evaluation.run.evaluate import evaluate
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
class Made:
    """A checkpoint: its score and the error of it, what came of each cut, what making it took."""

    score: Score
    cuts: Sequence[CutReport]
    seconds: float
    mib: float


def plan_of(params: Params, method: str, ratio: float) -> Plan:
    """The layers that a method drops, as in the study of methods: a share of all layers."""
    options = params.select.model_copy(update={"base": "all"})
    return select_layers(read_scores(SCORES), method, ratio, options, seed=params.seed)


def export_one(params: Params, plan: Plan, compensate: str, out: Path) -> tuple[Any, float, float]:
    """Write one checkpoint in this process; its cuts, seconds and peak memory in MiB."""
    from interlace.pruning.dense import Dense
    from interlace.pruning.export import export
    from interlace.pruning.new_weights import new_weights

    model = Path(params.model.id)
    asked = params.export.model_copy(update={"compensate": compensate})
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        dense = Dense(Checkpoint(model), CALIBRATION, params.answer_options)
        replaced, report = new_weights(dense, plan, asked, Path(scratch))
        taken = time.perf_counter() - begin
        export(model, plan, out, replaced=replaced)
    return report.compensation.cuts if report.compensation else [], taken, peak_mib()


def score_of(params: Params, model: Path) -> Score:
    """Mean over the held-out benchmarks, percent of exact answers, and its standard error."""
    options = {"params": params.evaluate, "dtype": params.dtype}
    found = evaluate(Checkpoint(model), model_name=model.name, **options).scores
    return overall_score(found) or 0.0, overall_error(found) or 0.0


def made(params: Params, plan: Plan, compensate: Literal["none", "lstsq"]) -> Made:
    """Make a checkpoint in a fresh process, and score it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "pruned"
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            cuts, seconds, mib = process.submit(export_one, params, plan, compensate, out).result()
        return Made(score_of(params, out), cuts, seconds, mib)


def rows(params: Params, ratios: Sequence[float], dense: Score) -> tuple[list[str], list[str]]:
    """The table of scores, and the table of cuts."""
    scores, cuts = [], []
    cases = [(method, ratio) for method in METHODS for ratio in ratios]
    for method, ratio in tqdm(cases, unit="case", desc="compensation"):
        try:
            plan = plan_of(params, method, ratio)
        except InputError as error:
            scores.append(f"| `{method}` | {100 * ratio:g}% | not feasible: {error} | | | |")
            continue
        plain, repaired = made(params, plan, "none"), made(params, plan, "lstsq")
        kept = sum(cut.kept for cut in repaired.cuts)
        scores.append(
            f"| `{method}` | {100 * ratio:g}% | {' '.join(map(str, plan.drop))}"
            f" | {_retained(plain.score, dense)} | {_retained(repaired.score, dense)}"
            f" | {kept} of {len(repaired.cuts)} |"
        )
        each = repaired.seconds / len(repaired.cuts)
        cuts.append(
            f"| `{method}` | {100 * ratio:g}% | {len(repaired.cuts)} | {each:.1f}"
            f" | {repaired.mib:.0f} | {plain.mib:.0f} |"
        )
    return scores, cuts


def _retained(found: Score, dense: Score) -> str:
    (score, error), (most, _) = found, dense
    return f"{score:.1f} ± {error:.1f} ({100 * score / most:.1f}%)"


def page(params: Params, ratios: Sequence[float]) -> str:
    """The whole page."""
    dense = score_of(params, Path(params.model.id))
    scores, cuts = rows(params, ratios, dense)
    zeroed = {name: made(params, plan_of(params, name, 0.25), "none").score for name in SPARSE}
    sparse = [f"| `{name}` | {_retained(score, dense)} |" for name, score in zeroed.items()]
    machine = f"torch {torch.__version__}, {os.cpu_count()} cores"
    samples = params.export.compensate_samples
    return "\n".join(
        [
            "# Making up for dropped layers, and 2:4 sparsity, on the demo\n",
            "Percent of exact answers on the demo's held-out benchmarks before any tuning, and in",
            f"brackets what that is of the dense model's {dense[0]:.1f}. ± is one standard error.",
            "`make study-compensation` runs all of it again.\n",
            "| method | ratio | dropped | as they are | compensated | runs kept |",
            "|---|---:|---|---:|---:|---:|",
            *scores,
            "\n## What it costs\n",
            f"On at most {samples} calibration rows ({machine}); memory is",
            "the peak of the whole process.\n",
            "| method | ratio | runs | seconds per run | MiB | MiB without |",
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
@click.option("--samples", type=int, help="Calibration rows to fit on, to try it with few.")
@click.option("--limit", type=int, help="Rows per benchmark, to try it with few.")
@click.option("--ratio", "ratios", type=float, multiple=True, help="Repeat it for several.")
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
