"""The run that a report is about: its files, names and versions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

import interlace
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.evaluation.scores.answers import Answer, read_answers
from interlace.evaluation.scores.result import Evaluation, read_evaluation
from interlace.evaluation.scores.significance import differences
from interlace.params.whole import Params
from interlace.plan.record import Plan, read_plan, read_reference
from interlace.plan.removals import PaperRule, Removals, read_removals
from interlace.pruning.report import ExportReport
from interlace.report.facts.calibration import enough, read_sizes
from interlace.report.facts.licence import inherited_metadata
from interlace.report.facts.losses import loss_numbers
from interlace.report.facts.speed import Speed, parse_speed, read_timings
from interlace.report.facts.summary import (
    MODELS,
    Metrics,
    benchmarks_of,
    left_out,
    summarise,
)
from interlace.samples.own_answers import AnswerSheet, read_answer_sheet
from interlace.sources.pinned import PinnedData, PinnedModel, PinnedSources
from interlace.system.rounding import numbers_rounded

Which = Literal["pruned", "tuned"]

IMAGE_SETTINGS = {"probes", "min_pixels", "max_pixels", "max_image_pixels"}


@dataclass(frozen=True)
class Run:
    """One run, with everything that was measured.

    Attributes:
        plan: which layers were dropped, tuned and frozen.
        removals: what each method would remove, and the rule of the plan's method.
        params: of the run.
        sources: the model and the data, as pinned.
        summary: numbers of `summarise` and others, rounded.
        evaluations: of the dense, pruned and tuned model.
        speed: times of the dense and the tuned model; None where nothing was timed.
        rows: of the training set (`train`) and of the calibration set (`calibration`).
        trained_on: the answers of the training rows.
        left_out: benchmarks that count in no mean, and why.
        exported: the report of `export`.
        inherited: metadata of the base model that hold for what is made of it.
    """

    plan: Plan
    removals: Removals
    params: Params
    sources: PinnedSources
    summary: Metrics
    evaluations: Mapping[str, Evaluation]
    speed: Speed | None
    rows: Mapping[str, int]
    trained_on: AnswerSheet = AnswerSheet("labels")  # noqa: RUF009 - frozen
    left_out: Mapping[str, str] = field(default_factory=dict)
    exported: ExportReport = field(default_factory=ExportReport)
    inherited: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> PinnedModel:
        """The dense model, as pinned."""
        return self.sources.model

    @property
    def trained(self) -> bool:
        """True where layers or other weights of the pruned model were to be trained."""
        return bool(self.plan.tune or self.params.finetune.also)

    @property
    def rule(self) -> PaperRule:
        """The rule of the plan's method."""
        return self.removals.rule


def loaded_from(which: Which) -> str:
    """Return the folder that a card loads the checkpoint from until it is published, quoted."""
    return f'"artifacts/{which}"'


def base_name(run: Run) -> str:
    """Name the base model by the last part of its id; a folder `model` by the one around it."""
    path = Path(run.base.id)
    unnamed = path.name == "model" and not run.base.revision
    return (path.parent.name if unnamed else "") or path.name


def name_of(run: Run, which: Which) -> str:
    """Name the checkpoint by base model, method and percent; `-untuned` where tuning is to come."""
    plan = run.plan
    name = f"{base_name(run)}-{plan.method}"
    if plan.drop or run.trained:
        name += f"-{100 * plan.ratio:.3g}"
    if which == "pruned" and run.trained:
        name += "-untuned"
    return re.sub(r"[^\w.-]+", "-", name)


def is_hub_id(source: str) -> bool:
    """Tell if a source, as pinned, may be a repository on the hub."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) is not None


def versions(run: Run) -> dict[str, str]:
    """Return the versions of the libraries behind the run."""
    return {"Interlace": interlace.__version__} | dict(run.evaluations["dense"].versions)


def pinned_params(run: Run) -> dict[str, Any]:
    """Return the parameters with the pinned revisions, without what holds on one machine only.

    Of a text-only model, without those about images: sections of probes, and bounds on images.
    """
    on_one_machine: Any = {
        "launch": True,
        "evaluate": {
            "judge": {"url"},
            "endpoint": {"urls", "models"},
            "vllm": {"command"},
        },
        "answers": {"endpoint": {"url"}},
    }
    params = run.params.model_dump(mode="json", exclude=on_one_machine)
    if not run.base.takes_images:
        params = without_images(params)
    for name, source in (("model", run.sources.model), ("data", run.sources.data)):
        if source.revision:
            params[name]["revision"] = source.revision
    return params


def without_images(params: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only models that take images read."""
    values = {name: value for name, value in params.items() if name not in IMAGE_SETTINGS}
    return {
        name: without_images(value) if isinstance(value, dict) else value
        for name, value in values.items()
    }


def shareable(value: Any) -> Any:
    """Cut absolute paths to their last part: they say nothing elsewhere."""
    if isinstance(value, Mapping):
        return {key: shareable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shareable(item) for item in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def file_hashes(source: PinnedModel | PinnedData) -> list[tuple[str, str]]:
    """Return the SHA-256 of each file of weights or rows of a local source, by the file's name."""
    return [
        (name, file.sha256)
        for name, file in sorted((source.files or {}).items())
        if name.endswith((".safetensors", ".parquet"))
    ]


def files_of(artifacts: Path) -> dict[str, str]:
    """Map the models of a run to the names of their files from `evaluate`.

    The dense model comes first, then the reference where there is one, then what was pruned: each
    is compared with those before it.
    """
    file = artifacts / "reference_plan.json"
    plan = read_reference(file) if file.is_file() else None
    reference = {plan.method.replace("-", "_"): "reference"} if plan else {}
    return {"dense": "dense"} | reference | {name: name for name in MODELS[1:]}


def read_evaluations(artifacts: Path) -> dict[str, Evaluation]:
    """Read the evaluations of all models, the reference by its own name."""
    folder = artifacts / "evaluation"
    files = files_of(artifacts)
    return {name: read_evaluation(folder / f"{file}.json") for name, file in files.items()}


def answers_of(artifacts: Path) -> dict[str, list[Answer]]:
    """Read answers of the same models; empty where no row has a score from all of them."""
    folder = artifacts / "evaluation/answers"
    answers = {
        name: read_answers(folder / f"{f}.parquet") for name, f in files_of(artifacts).items()
    }
    scored = [{(a.benchmark, a.sample_id) for a in rows if a.score is not None}
              for rows in answers.values()]  # fmt: skip
    return answers if set.intersection(*scored) else {}


def retention_intervals(
    answers: Mapping[str, Sequence[Answer]], summary: Metrics
) -> dict[str, float]:
    """Compute bounds of retention at 95%, by a paired bootstrap over questions.

    Args:
        answers: of each model; none where there is nothing to compare.
        summary: says on which benchmarks all models have a score.
    """
    bounds: dict[str, float] = {}
    names = benchmarks_of(summary)
    counted = {name for name in names if all(f"{model}/{name}" in summary for model in answers)}
    counted_answers = {
        model: [answer for answer in rows if answer.benchmark in counted]
        for model, rows in answers.items()
    }
    for first, second in combinations(answers, 2) if counted else ():
        key = f"retention_{second}" + ("" if first == "dense" else f"_of_{first}")
        if first == "pruned":
            continue
        interval = differences(counted_answers[first], counted_answers[second])[
            -1
        ].retained_interval
        if interval is not None:
            bounds |= {f"{key}_low": interval[0], f"{key}_high": interval[1]}
    return bounds


def rows_of(folder: Path) -> int:
    """Count the rows of a folder's Parquet files from their metadata."""
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


def read_run(
    artifacts: Path,
    metrics: Path,
    data: Path,
    dense_dir: Path,
    params: Params,
    answers: Mapping[str, Sequence[Answer]],
) -> Run:
    """Read everything that was measured; see `write_report`."""
    plan = read_plan(artifacts / "plan.json")
    evaluations = read_evaluations(artifacts)
    ttft = read_timings(metrics / "ttft.json")
    summary = summarise(
        evaluations,
        ttft,
        plan,
        parameters_before=Checkpoint(dense_dir).parameters,
        parameters_after=Checkpoint(artifacts / "pruned").parameters,
    )
    rows = {name: rows_of(data / name) for name in ("train", "calibration")}
    sizes = read_sizes(metrics / "calibration_size.csv")
    return Run(
        plan=plan,
        removals=read_removals(artifacts / "removals.json"),
        params=params,
        sources=PinnedSources.read(artifacts / "sources.json"),
        summary=numbers_rounded(
            summary
            | retention_intervals(answers, summary)
            | loss_numbers(answers)
            | enough(sizes, rows["calibration"] / rows["train"])
        ),
        evaluations=evaluations,
        speed=parse_speed(ttft),
        rows=rows,
        trained_on=read_answer_sheet(data / "answers"),
        left_out=left_out(evaluations),
        exported=ExportReport.read(artifacts / "export.json"),
        inherited=inherited_metadata(dense_dir),
    )
