"""Everything a run measured -> its summary, figures and model cards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
from rich.console import Group, RenderableType

from interlace.errors import InputError
from interlace.evaluation.answers import Answer, read_answers
from interlace.evaluation.pictures import pictures
from interlace.evaluation.result import Evaluation
from interlace.evaluation.retention import common_benchmarks
from interlace.evaluation.significance import differences
from interlace.outputs import whole, write_json
from interlace.params import Params
from interlace.plan import read_plan
from interlace.publish import Which
from interlace.reference import read_reference
from interlace.report.card import Run, inherited_metadata, model_card
from interlace.report.changes import changes_section
from interlace.report.figures import local_loss_figure, loss_figure, retention_figure
from interlace.report.pipeline import pipeline_figure
from interlace.report.published import (
    PUBLISHED,
    beside_published,
    published_table,
    read_published,
    retention_beside,
    speedup_beside,
)
from interlace.report.run_page import Drawing, run_page
from interlace.report.stability import enough, read_sizes
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


def files_of(artifacts: Path) -> dict[str, str]:
    """The models of a run by name, and what the files are called that `evaluate` wrote of them.

    The dense model comes first, then the reference where there is one, then what was pruned: each
    is compared with those before it.
    """
    file = artifacts / "reference_plan.json"
    plan = read_reference(file) if file.is_file() else None
    reference = {plan.method.replace("-", "_"): "reference"} if plan else {}
    return {"dense": "dense"} | reference | {name: name for name in MODELS[1:]}


def read_evaluations(artifacts: Path) -> dict[str, Evaluation]:
    """The evaluations of the dense, pruned and tuned model, and of the reference by its name."""
    folder = artifacts / "evaluation"
    return {name: read_json(folder / f"{file}.json") for name, file in files_of(artifacts).items()}


def answers_of(artifacts: Path) -> dict[str, list[Answer]]:
    """Answers of the same models; empty where no row has a score from every one of them."""
    folder = artifacts / "evaluation/answers"
    found = {name: read_answers(folder / f"{f}.parquet") for name, f in files_of(artifacts).items()}
    scored = [{(a.benchmark, a.sample_id) for a in given if a.score is not None}
              for given in found.values()]  # fmt: skip
    return found if set.intersection(*scored) else {}


def retention_intervals(
    answers: Mapping[str, Sequence[Answer]], summary: Metrics
) -> dict[str, float]:
    """Bounds of retention at 95%, by a paired bootstrap over questions.

    Args:
        answers: of each model; none where there is nothing to compare.
        summary: says on which benchmarks all models have a score.
    """
    found: dict[str, float] = {}
    names = benchmarks_of(summary)
    counted = {name for name in names if all(f"{model}/{name}" in summary for model in answers)}
    kept = {
        model: [answer for answer in given if answer.benchmark in counted]
        for model, given in answers.items()
    }
    for first, second in combinations(answers, 2) if counted else ():
        key = f"retention_{second}" + ("" if first == "dense" else f"_of_{first}")
        if first == "pruned":
            continue
        interval = differences(kept[first], kept[second])[-1].retained_interval
        if interval is not None:
            found |= {f"{key}_low": interval[0], f"{key}_high": interval[1]}
    return found


def rows_of(folder: Path) -> int:
    """How many rows the Parquet files of a folder hold; none is read."""
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


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


def read_run(
    artifacts: Path,
    metrics: Path,
    data: Path,
    dense_dir: Path,
    params: Params,
    answers: Mapping[str, Sequence[Answer]],
) -> Run:
    """Everything that was measured; see `write_report`."""
    plan = read_plan(artifacts / "plan.json")
    evaluations = read_evaluations(artifacts)
    ttft: Metrics = read_json(metrics / "ttft.json")
    summary = summarise(
        evaluations,
        ttft,
        plan,
        parameters_before=count_parameters(dense_dir),
        parameters_after=count_parameters(artifacts / "pruned"),
    )
    rows = {name: rows_of(data / name) for name in ("train", "calibration")}
    sizes = read_sizes(metrics / "calibration_size.csv")
    exported = artifacts / "export.json"
    return Run(
        plan=plan,
        params=params.model_dump(mode="json"),
        sources=read_json(artifacts / "sources.json"),
        summary=summary
        | retention_intervals(answers, summary)
        | enough(sizes, rows["calibration"] / rows["train"]),
        evaluations=evaluations,
        ttft=ttft,
        rows=rows,
        left_out=left_out(evaluations),
        exported=read_json(exported) if exported.exists() else {},
        inherited=inherited_metadata(dense_dir),
    )


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
    scores = {name: evaluation["scores"] for name, evaluation in run.evaluations.items()}
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
        if common_benchmarks(*(each["scores"] for each in three.values())):
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
