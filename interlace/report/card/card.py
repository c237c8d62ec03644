"""The model card of a checkpoint: metadata that the hub reads, and a page that people read."""

from __future__ import annotations

import re

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from interlace.evaluation.scores.result import Evaluation
from interlace.report.card import recipe, sections
from interlace.report.facts.run import Run, Which, is_hub_id, name_of, pinned, shareable, versions

TASK = "image-text-to-text"


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
        *sections.layers(run.plan, run.rule, which),
        *sections.scores(run, which),
        *sections.speed(run, which),
        *recipe.making(run, which),
        *recipe.reproduction(
            shareable(pinned(run)), shareable(run.plan.model_dump(mode="json")), versions(run)
        ),
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"))


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
            metric_value=round(score.score, 2),
            metric_args={"samples": score.n}
            | (
                {}
                if score.standard_error is None
                else {"standard_error": round(score.standard_error, 2)}
            ),
        )
        for name, score in evaluation.scores.items()
    ]
