"""The model card of a checkpoint: metadata that the hub reads, and a page that people read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

import interlace
from interlace.evaluation.result import Evaluation
from interlace.plan import Plan
from interlace.publish import Which
from interlace.report import recipe, sections
from interlace.report.summary import Metrics

TASK = "image-text-to-text"
INHERITED = ("license", "license_name", "license_link", "language")


@dataclass(frozen=True)
class Run:
    """What a card is made from.

    Attributes:
        plan: which layers were dropped, tuned and frozen.
        params: plain values of the parameter file.
        sources: what `pin` wrote: the model and the data by revision, or by their files' hashes.
        summary: what `summarise` returned.
        evaluations: of the dense, pruned and tuned model.
        ttft: what `latency.measure` returned.
        rows: of the training set (`train`) and of the calibration set (`calibration`).
        left_out: benchmarks that count in no mean, and why.
        exported: what `export` wrote about its work; each of its keys may be missing.
        inherited: metadata of the base model's own card that holds for what is made of it.
    """

    plan: Plan
    params: Mapping[str, Any]
    sources: Mapping[str, Any]
    summary: Metrics
    evaluations: Mapping[str, Evaluation]
    ttft: Metrics
    rows: Mapping[str, int]
    left_out: Mapping[str, str] = field(default_factory=dict)
    exported: Mapping[str, Any] = field(default_factory=dict)
    inherited: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> Mapping[str, Any]:
        """The dense model, as pinned."""
        found: Mapping[str, Any] = self.sources["pinned_model"]
        return found


def model_card(run: Run, which: Which) -> str:
    """Write the model card of the pruned or the tuned checkpoint.

    Returns:
        The text of README.md; the same run gives the same text. What the card loads the model from
        is left open as `"MODEL"`. Absolute paths are cut to their last part.

    Raises:
        ValueError: what a run says cannot be written as a card.
    """
    data = ModelCardData(
        base_model=run.base["id"] if is_hub_id(run.base["id"]) else None,
        datasets=_datasets(run, which),
        library_name="transformers",
        pipeline_tag=TASK,
        tags=["interlace", "layer-pruning"],
        model_name=name_of(run, which),
        eval_results=_results(run.evaluations[which]) or None,
        **run.inherited,
    )
    parts = [
        f"# {name_of(run, which)}",
        *sections.introduction(run, which),
        *sections.usage(bool(run.base.get("trust_remote_code"))),
        *sections.layers(run.plan, which),
        *sections.scores(run, which),
        *sections.speed(run, which),
        *recipe.making(run, which),
        *recipe.reproduction(
            shareable(pinned(run)), shareable(run.plan.model_dump(mode="json")), versions(run)
        ),
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"))


def name_of(run: Run, which: Which) -> str:
    """What the checkpoint is called: base model, method, percent, and whether tuning is to come."""
    plan = run.plan
    name = f"{Path(str(run.base['id'])).name}-{plan.method}"
    if plan.drop or plan.tune:
        name += f"-{100 * plan.ratio:.3g}"
    if which == "pruned" and plan.tune:
        name += "-untuned"
    return re.sub(r"[^\w.-]+", "-", name)


def is_hub_id(source: str) -> bool:
    """Whether a source, as pinned, may be a repository on the hub."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) is not None


def inherited_metadata(base_dir: Path) -> dict[str, Any]:
    """The licence and the languages that the base model's own card names, if it has one."""
    try:
        data = ModelCard.load(base_dir / "README.md").data.to_dict()
    except (OSError, ValueError, TypeError, yaml.YAMLError):  # no card, or none that can be read
        return {}
    return {name: data[name] for name in INHERITED if data.get(name)}


def _datasets(run: Run, which: Which) -> list[str] | None:
    """The data set that weights were trained on, where it is on the hub."""
    source = run.sources["pinned_data"]
    trained = which == "tuned" and run.plan.tune and "revision" in source
    return [source["id"]] if trained else None


def _results(evaluation: Evaluation) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=re.sub(r"[^\w.-]+", "-", name.lower()).strip("-") or "benchmark",
            dataset_name=name,
            metric_type="score",
            metric_name="score (0 to 100)",
            metric_value=round(score["score"], 2),
            metric_args={"samples": score["n"]}
            | (
                {}
                if score["standard_error"] is None
                else {"standard_error": round(score["standard_error"], 2)}
            ),
        )
        for name, score in evaluation["scores"].items()
    ]


def versions(run: Run) -> dict[str, str]:
    """The libraries that the run was made with."""
    return {"Interlace": interlace.__version__} | dict(run.evaluations["dense"]["versions"])


def pinned(run: Run) -> dict[str, Any]:
    """The parameters, with the revisions that were used, without what holds on one machine only."""
    params = {name: value for name, value in run.params.items() if name != "launch"}
    if asked := params.get("evaluate", {}).get("judge"):
        judge = {name: value for name, value in asked.items() if name != "url"}
        params["evaluate"] = dict(params["evaluate"]) | {"judge": judge}
    for name in ("model", "data"):
        revision = run.sources[f"pinned_{name}"].get("revision")
        if revision and name in params:
            params[name] = dict(params[name]) | {"revision": revision}
    return params


def shareable(value: Any) -> Any:
    """The same values, absolute paths cut to their last part: they say nothing elsewhere."""
    if isinstance(value, Mapping):
        return {key: shareable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shareable(item) for item in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value
