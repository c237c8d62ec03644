"""Everything a run measured -> its summary, figures and model cards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import get_args

from rich.console import Group, RenderableType

from interlace.data.datasheet import read_datasheet
from interlace.evaluation.benchmarks.images import row_images
from interlace.evaluation.scores.answers import Answer
from interlace.evaluation.scores.retention import common_benchmarks
from interlace.params.whole import Params
from interlace.plan.candidates import read_candidates
from interlace.report.card.card import model_card
from interlace.report.card.eval_results import FOLDER, eval_results
from interlace.report.facts.calibration import read_sizes
from interlace.report.facts.candidates import candidates_table
from interlace.report.facts.inputs import RECORD, Workspace, input_hashes
from interlace.report.facts.losses import loss_table, rises
from interlace.report.facts.published import (
    beside_published,
    published_table,
    read_published,
    retention_beside,
    speedup_beside,
)
from interlace.report.facts.run import Run, Which, answers_of, read_run
from interlace.report.facts.summary import MODELS
from interlace.report.facts.table import Table
from interlace.report.figures.calibration import calibration_size_figure
from interlace.report.figures.datasheet import datasheet_figure
from interlace.report.figures.layer_map import layer_map_figure
from interlace.report.figures.pipeline import pipeline_figure
from interlace.report.figures.probes import probe_heatmap
from interlace.report.figures.profile import profile_figure
from interlace.report.figures.removals import removal_map
from interlace.report.figures.retention import retention_figure
from interlace.report.figures.training import local_loss_figure, loss_figure
from interlace.report.page.changes import Comparison, comparison
from interlace.report.page.images import Drawing
from interlace.report.page.run import run_page
from interlace.report.terminal.summary import summary_table
from interlace.scores.probes import read_probe_table
from interlace.scores.table import read_scores
from interlace.system.outputs import whole, write_json

EXAMPLES, MOST = 1, 6  # changed answers that the page shows: of each kind and benchmark, and kind


def _draw(folder: Path, run: Run, artifacts: Path, metrics: Path, data: Path) -> Iterator[Drawing]:
    """Draw all figures into the report's folder; yield those that the page shows, in its order."""
    scores = artifacts / "scores.parquet"
    three = {name: run.evaluations[name] for name in MODELS}
    layer_map_figure(run.plan, folder / "layer_map.png")
    what_happens = folder / "what-happens.svg"
    table, with_images = read_scores(scores), run.base.takes_images
    pipeline_figure(what_happens, table, run.plan, with_images=with_images)
    yield Drawing(what_happens, "What happens to each layer, by its score", large=True)
    if common_benchmarks(*(evaluation.scores for evaluation in three.values())):
        retention_figure(three, folder / "retention.png")
        yield Drawing(folder / "retention.png", "Scores of the dense, pruned and tuned model")
    if local_loss_figure(metrics / "local_loss.csv", folder / "local_loss.png"):
        yield Drawing(folder / "local_loss.png", "Error of local healing, layer by layer")
    loss_figure(metrics / "loss.csv", folder / "loss.png", rises(run.summary))
    yield Drawing(folder / "loss.png", "Loss of fine-tuning, its learning rate and gradient")
    profile_figure(scores, folder / "profile.png")
    yield Drawing(folder / "profile.png", "Similarity of layers and triplets over depth")
    if with_images:
        probe_heatmap(read_probe_table(metrics / "probes.csv"), folder / "probes.png")
        yield Drawing(folder / "probes.png", "Similarity of each layer on each probe task")
    calibration_size_figure(
        read_sizes(metrics / "calibration_size.csv"), folder / "calibration_size.png"
    )
    yield Drawing(folder / "calibration_size.png", "Agreement by size of the calibration set")
    removal_map(run.removals.removals, folder / "removals.png")
    yield Drawing(folder / "removals.png", "What each method would remove")
    datasheet_figure(read_datasheet(data / "datasheet.json"), folder / "datasheet.png")
    yield Drawing(folder / "datasheet.png", "What the training data holds", large=True)


def _candidates(artifacts: Path) -> Table:
    return candidates_table(read_candidates(artifacts / "candidates"))


def _comparison(answers: Mapping[str, Sequence[Answer]], params: Params) -> Comparison | None:
    """Compare the models' answers; None where nothing was scored."""
    by_model = {name.replace("_", "-"): rows for name, rows in answers.items()}
    images = partial(row_images, params.evaluate)
    return comparison(by_model, EXAMPLES, images, MOST) if by_model else None


def _write_eval_results(folder: Path, contents: Mapping[str, str]) -> None:
    """Write the files that `push` sends with a card; no folder where there are none."""
    for name, text in contents.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def write_report(
    artifacts: Path, metrics: Path, data: Path, *, dense_dir: Path, params: Params
) -> RenderableType:
    """Write `metrics/summary.json` and the report's folder: figures, cards and a page.

    Args:
        artifacts: holds sources.json, scores.parquet, plan.json, removals.json, pruned/ and
            evaluation/ (with answers/), and export.json and reference_plan.json where these stages
            had something to say; gets report/.
        metrics: holds ttft.json, local_loss.csv, loss.csv, probes.csv and calibration_size.csv;
            gets summary.json.
        data: holds train/, answers/, calibration/ and datasheet.json.
        dense_dir: the dense checkpoint.
        params: of the run; the cards embed them.

    Returns:
        The summary as a table for the terminal.
    """
    answers = answers_of(artifacts)
    run = read_run(artifacts, metrics, data, dense_dir, params, answers)
    scores = {name: evaluation.scores for name, evaluation in run.evaluations.items()}
    published = read_published()
    beside = [
        *beside_published(scores, params, run.plan.ratio, published),
        *retention_beside(run.summary, params, run.plan.ratio, published),
        *speedup_beside(run.speed, params, run.plan.ratio, published),
    ]
    with whole(artifacts / "report") as folder:
        folder.mkdir()
        for which in get_args(Which):
            (folder / f"{which}.md").write_text(model_card(run, which), encoding="utf-8")
            _write_eval_results(folder / FOLDER / which, eval_results(run, which))
        write_json(folder / "published.json", [asdict(pair) for pair in beside])
        page = run_page(
            run,
            list(_draw(folder, run, artifacts, metrics, data)),
            plan_digest=hashlib.sha256((artifacts / "plan.json").read_bytes()).hexdigest(),
            published=beside,
            losses=loss_table(answers),
            candidates=_candidates(artifacts) if run.plan.candidates else None,
            answers=_comparison(answers, params),
        )
        (folder / "report.html").write_text(page, encoding="utf-8")
        write_json(metrics / "summary.json", dict(run.summary))
        write_json(folder / RECORD, input_hashes(Workspace(artifacts, metrics, data)))
    table = summary_table(run.summary, run.left_out)
    return Group(table, "", published_table(beside)) if beside else table
