"""Everything a run measured -> its summary, figures and model cards."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import get_args

from rich.console import Group, RenderableType

from interlace.evaluation.benchmarks.pictures import pictures
from interlace.evaluation.scores.answers import Answer
from interlace.evaluation.scores.retention import common_benchmarks
from interlace.outputs import whole, write_json
from interlace.params.whole import Params
from interlace.report.card.card import model_card
from interlace.report.facts.published import (
    PUBLISHED,
    beside_published,
    published_table,
    read_published,
    retention_beside,
    speedup_beside,
)
from interlace.report.facts.run import Which, answers_of, read_run
from interlace.report.facts.summary import (
    MODELS,
)
from interlace.report.figures.pipeline import pipeline_figure
from interlace.report.figures.training import local_loss_figure, loss_figure, retention_figure
from interlace.report.page.changes import changes_section
from interlace.report.page.run import Drawing, run_page
from interlace.report.terminal.summary import summary_table
from interlace.scores.table import read_scores


def _drawings(report: Path, artifacts: Path) -> list[Drawing]:
    """What the page shows, in its order."""
    return [
        Drawing(report / "what-happens.svg", "What happens to each layer, by its score"),
        Drawing(report / "retention.png", "Scores of the dense, pruned and tuned model"),
        Drawing(report / "local_loss.png", "Error of local healing, layer by layer"),
        Drawing(report / "loss.png", "Loss of fine-tuning, its learning rate and gradient"),
        Drawing(artifacts / "profile.png", "Similarity of layers and triplets over depth"),
        Drawing(artifacts / "probes.png", "Similarity of each layer on each probe task"),
        Drawing(artifacts / "calibration_size.png", "Agreement by size of the calibration set"),
        Drawing(artifacts / "removals.png", "What each method would remove"),
        Drawing(artifacts / "datasheet.png", "What the training data holds"),
    ]


def _compared(answers: Mapping[str, Sequence[Answer]], params: Params) -> str:
    """What pruning and tuning changed in the answers, as HTML; empty where nothing was scored."""
    named = {name.replace("_", "-"): given for name, given in answers.items()}
    shown = partial(pictures, params.evaluate)
    return changes_section(named, 2, shown) if named else ""


def write_report(
    artifacts: Path, metrics: Path, data: Path, *, dense_dir: Path, params: Params
) -> RenderableType:
    """Write `metrics/summary.json` and the report's folder: figures, cards and a page.

    Args:
        artifacts: holds sources.json, scores.parquet, plan.json, pruned/, evaluation/ (with
            answers/) and figures, and export.json and reference_plan.json where these stages had
            something to say; gets report/.
        metrics: holds ttft.json, local_loss.csv, loss.csv and calibration_size.csv; gets
            summary.json.
        data: holds train/, calibration/ and published.csv.
        dense_dir: the dense checkpoint.
        params: of the run; the cards embed them.

    Returns:
        The summary as a table for the terminal.
    """
    answers = answers_of(artifacts)
    run = read_run(artifacts, metrics, data, dense_dir, params, answers)
    table_of_scores = read_scores(artifacts / "scores.parquet")
    scores = {name: evaluation.scores for name, evaluation in run.evaluations.items()}
    known = read_published(data / PUBLISHED.name)
    beside = [
        *beside_published(scores, params, run.plan.ratio, known),
        *retention_beside(run.summary, params, run.plan.ratio, known),
        *speedup_beside(run.ttft, params, run.plan.ratio, known),
    ]
    with whole(artifacts / "report") as folder:
        folder.mkdir()
        for which in get_args(Which):
            (folder / f"{which}.md").write_text(model_card(run, which), encoding="utf-8")
        three = {name: run.evaluations[name] for name in MODELS}
        if common_benchmarks(*(each.scores for each in three.values())):
            retention_figure(three, folder / "retention.png")
        write_json(folder / "published.json", [asdict(one) for one in beside])
        local_loss_figure(metrics / "local_loss.csv", folder / "local_loss.png")
        loss_figure(metrics / "loss.csv", folder / "loss.png")
        pipeline_figure(folder / "what-happens.svg", table_of_scores, run.plan)
        told = run_page(
            run,
            _drawings(folder, artifacts),
            plan_digest=hashlib.sha256((artifacts / "plan.json").read_bytes()).hexdigest(),
            published=beside,
            compared=_compared(answers, params),
        )
        (folder / "report.html").write_text(told, encoding="utf-8")
    write_json(metrics / "summary.json", dict(run.summary))
    table = summary_table(run.summary, run.left_out)
    return Group(table, "", published_table(beside)) if beside else table
