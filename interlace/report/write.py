"""Everything a run measured -> its summary, figures and model card."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from interlace.errors import InputError
from interlace.evaluation.answers import read_answers
from interlace.evaluation.result import Evaluation
from interlace.evaluation.significance import differences
from interlace.outputs import whole, write_json
from interlace.params import Params
from interlace.plan import read_plan
from interlace.report.card import model_card
from interlace.report.figures import loss_figure, retention_figure
from interlace.report.pipeline import pipeline_figure
from interlace.report.published import beside_published, published_table, read_published
from interlace.report.summary import (
    MODELS,
    Metrics,
    benchmarks_of,
    count_parameters,
    left_out,
    summarise,
)
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


def retention_intervals(folder: Path, summary: Metrics) -> dict[str, float]:
    """Bounds of retention at 95%, by a paired bootstrap over questions.

    Args:
        folder: holds the answers of each model.
        summary: says on which benchmarks all models have a score.
    """
    found: dict[str, float] = {}
    answers = {name: read_answers(folder / f"{name}.parquet") for name in MODELS}
    counted = {
        name for name in benchmarks_of(summary) if all(f"{m}/{name}" in summary for m in MODELS)
    }
    kept = {
        model: [answer for answer in given if answer.benchmark in counted]
        for model, given in answers.items()
    }
    for model in MODELS[1:] if counted else ():
        interval = differences(kept["dense"], kept[model])[-1].retained_interval
        if interval is not None:
            low, high = interval
            found |= {f"retention_{model}_low": low, f"retention_{model}_high": high}
    return found


def write_report(
    artifacts: Path, metrics: Path, *, dense_dir: Path, params: Params
) -> RenderableType:
    """Write `metrics/summary.json` and the report's folder.

    Args:
        artifacts: holds scores.parquet, plan.json, pruned/ and evaluation/; gets report/.
        metrics: holds ttft.json and loss.csv; gets summary.json.
        dense_dir: the dense checkpoint.
        params: of the run; the card embeds them.

    Returns:
        The summary as a table for the terminal.
    """
    plan = read_plan(artifacts / "plan.json")
    table_of_scores = read_scores(artifacts / "scores.parquet")
    evaluations = read_evaluations(artifacts / "evaluation")
    summary = summarise(
        evaluations,
        read_json(metrics / "ttft.json"),
        plan,
        parameters_before=count_parameters(dense_dir),
        parameters_after=count_parameters(artifacts / "pruned"),
    )
    summary |= retention_intervals(artifacts / "evaluation/answers", summary)
    missing = left_out(evaluations)
    scores = {name: evaluation["scores"] for name, evaluation in evaluations.items()}
    beside = beside_published(scores, params, plan.ratio, read_published())
    card = model_card(
        name=f"{Path(params.model.id).name}-{params.method}-{100 * plan.ratio:.3g}",
        base_model=params.model.id,
        summary=summary,
        plan=plan,
        params=params.model_dump(mode="json"),
        left_out=missing,
    )
    with whole(artifacts / "report") as folder:
        folder.mkdir()
        (folder / "README.md").write_text(card, encoding="utf-8")
        retention_figure(evaluations, folder / "retention.png")
        write_json(folder / "published.json", [asdict(one) for one in beside])
        loss_figure(metrics / "loss.csv", folder / "loss.png")
        pipeline_figure(folder / "what-happens.svg", table_of_scores, plan)
    write_json(metrics / "summary.json", summary)
    table = summary_table(summary, missing)
    return Group(table, "", published_table(beside)) if beside else table
