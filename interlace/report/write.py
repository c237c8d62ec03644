"""Everything a run measured -> its summary, figures and model cards."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
from rich.console import RenderableType

from interlace.errors import InputError
from interlace.evaluation.result import Evaluation
from interlace.outputs import whole, write_json
from interlace.params import Params
from interlace.plan import read_plan
from interlace.publish import Which
from interlace.report.card import Run, inherited_metadata, model_card
from interlace.report.figures import loss_figure, retention_figure
from interlace.report.pipeline import pipeline_figure
from interlace.report.run_page import Drawing, run_page
from interlace.report.summary import MODELS, Metrics, count_parameters, left_out, summarise
from interlace.report.table import summary_table
from interlace.scores import read_scores


def read_json(path: Path) -> Any:
    """Read what an earlier stage wrote.

    Raises:
        InputError: it is not there.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run `dvc repro`") from None


def read_evaluations(folder: Path) -> dict[str, Evaluation]:
    """The evaluations of the dense, pruned and tuned model."""
    return {name: read_json(folder / f"{name}.json") for name in MODELS}


def rows_of(folder: Path) -> int:
    """How many rows the Parquet files of a folder hold; none is read."""
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


def _drawings(report: Path, artifacts: Path) -> list[Drawing]:
    """What the page shows, in its order."""
    return [
        Drawing(report / "what-happens.svg", "What happens to each layer, by its score"),
        Drawing(report / "retention.png", "Scores of the dense, pruned and tuned model"),
        Drawing(report / "loss.png", "Loss of fine-tuning, its learning rate and gradient"),
        Drawing(artifacts / "profile.png", "Similarity of layers and triplets over depth"),
        Drawing(artifacts / "probes.png", "Similarity of each layer on each probe task"),
        Drawing(artifacts / "calibration_size.png", "Agreement by size of the calibration set"),
        Drawing(artifacts / "removals.png", "What each method would remove"),
    ]


def write_report(
    artifacts: Path, metrics: Path, data: Path, *, dense_dir: Path, params: Params
) -> RenderableType:
    """Write `metrics/summary.json` and the report's folder: figures, a card per checkpoint, a page.

    Args:
        artifacts: holds sources.json, scores.parquet, plan.json, pruned/ and evaluation/, figures,
            and export.json where `export` had something to say; gets report/.
        metrics: holds ttft.json and loss.csv; gets summary.json.
        data: holds train/ and calibration/.
        dense_dir: the dense checkpoint.
        params: of the run; the cards embed them.

    Returns:
        The summary as a table for the terminal.
    """
    plan = read_plan(artifacts / "plan.json")
    scores = read_scores(artifacts / "scores.parquet")
    evaluations = read_evaluations(artifacts / "evaluation")
    ttft: Metrics = read_json(metrics / "ttft.json")
    summary = summarise(
        evaluations,
        ttft,
        plan,
        parameters_before=count_parameters(dense_dir),
        parameters_after=count_parameters(artifacts / "pruned"),
    )
    exported = artifacts / "export.json"
    run = Run(
        plan=plan,
        params=params.model_dump(mode="json"),
        sources=read_json(artifacts / "sources.json"),
        summary=summary,
        evaluations=evaluations,
        ttft=ttft,
        rows={name: rows_of(data / name) for name in ("train", "calibration")},
        left_out=left_out(evaluations),
        exported=read_json(exported) if exported.exists() else {},
        inherited=inherited_metadata(dense_dir),
    )
    with whole(artifacts / "report") as folder:
        folder.mkdir()
        for which in get_args(Which):
            (folder / f"{which}.md").write_text(model_card(run, which), encoding="utf-8")
        retention_figure(evaluations, folder / "retention.png")
        loss_figure(metrics / "loss.csv", folder / "loss.png")
        pipeline_figure(folder / "what-happens.svg", scores, plan)
        digest = hashlib.sha256((artifacts / "plan.json").read_bytes()).hexdigest()
        told = run_page(run, _drawings(folder, artifacts), plan_digest=digest)
        (folder / "report.html").write_text(told, encoding="utf-8")
    write_json(metrics / "summary.json", summary)
    return summary_table(summary, run.left_out)
