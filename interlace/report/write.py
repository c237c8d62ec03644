"""Everything a run measured -> its summary, figures and model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from interlace.errors import InputError
from interlace.evaluation.result import Evaluation
from interlace.outputs import whole, write_json
from interlace.params import Params
from interlace.plan import read_plan
from interlace.reference import read_reference
from interlace.report.card import model_card
from interlace.report.figures import loss_figure, retention_figure
from interlace.report.pipeline import pipeline_figure
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
    """The evaluations of the dense, pruned and tuned model, and of the reference by its name."""
    found = {name: read_json(folder / f"{name}.json") for name in MODELS}
    file = folder.parent / "reference_plan.json"
    plan = read_reference(file) if file.is_file() else None
    if plan:
        found[plan.method.replace("-", "_")] = read_json(folder / "reference.json")
    return found


def write_report(
    artifacts: Path, metrics: Path, *, dense_dir: Path, params: Params
) -> RenderableType:
    """Write `metrics/summary.json` and the report's folder.

    Args:
        artifacts: holds scores.parquet, plan.json, reference_plan.json, pruned/ and evaluation/;
            gets report/.
        metrics: holds ttft.json and loss.csv; gets summary.json.
        dense_dir: the dense checkpoint.
        params: of the run; the card embeds them.

    Returns:
        The summary as a table for the terminal.
    """
    plan = read_plan(artifacts / "plan.json")
    scores = read_scores(artifacts / "scores.parquet")
    evaluations = read_evaluations(artifacts / "evaluation")
    summary: Metrics = summarise(
        evaluations,
        read_json(metrics / "ttft.json"),
        plan,
        parameters_before=count_parameters(dense_dir),
        parameters_after=count_parameters(artifacts / "pruned"),
    )
    missing = left_out(evaluations)
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
        retention_figure({name: evaluations[name] for name in MODELS}, folder / "retention.png")
        loss_figure(metrics / "loss.csv", folder / "loss.png")
        pipeline_figure(folder / "what-happens.svg", scores, plan)
    write_json(metrics / "summary.json", summary)
    return summary_table(summary, missing)
