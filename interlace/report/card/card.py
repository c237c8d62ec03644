"""The model card of a checkpoint: metadata that the hub reads, and a page that people read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from interlace.evaluation.scores.result import Evaluation
from interlace.plan.runtimes import misreadings
from interlace.printable import one_line
from interlace.report.card.markdown import bold
from interlace.report.card.recipe import (
    calibration_text,
    compensation_text,
    data_share,
    healed_text,
    trained_text,
    training_text,
)
from interlace.report.facts.decision import asked, notes, percent
from interlace.report.facts.licence import licence_text
from interlace.report.facts.losses import rise_text
from interlace.report.facts.run import (
    Run,
    Which,
    base_name,
    is_hub_id,
    loaded_from,
    name_of,
    pinned_params,
    shareable,
    versions,
)
from interlace.report.facts.scores import retentions, score_rows, share_text
from interlace.report.facts.served import served_table
from interlace.report.facts.summary import references_in
from interlace.report.facts.table import Table
from interlace.report.facts.wording import parameter_sizes, spelled, training_answers
from interlace.report.render import render
from interlace.system.documents import as_yaml

RELATION = "finetune"  # nearest of the hub's: adapter, finetune, merge, quantized
TASKS = {True: "image-text-to-text", False: "text-generation"}  # by whether images are taken


def model_card(run: Run, which: Which) -> str:
    """Write the model card of the pruned or the tuned checkpoint.

    Returns:
        The text of README.md; the same run gives the same text. The card loads the model from the
        run's own folder, which `push` replaces. Absolute paths are cut to their last part.

    Raises:
        ValueError: what a run says cannot be written as a card.
    """
    plan, models = run.plan, _models(run, which)
    compensation = run.exported.compensation
    text = render(
        "card.md",
        run=run,
        which=which,
        name=name_of(run, which),
        base_name=base_name(run),
        this=models[which],
        tuned=trained_text(run) if which == "tuned" else "",
        same_weights=_same_weights(run),
        overview=_overview(run, which),
        trust_remote_code=run.base.trust_remote_code,
        address=loaded_from(which),
        asked=asked(plan),
        layers=_layers(run, which),
        notes=[*notes(plan), *misreadings(plan)],
        scores=_scores(run, which, models),
        served=served_table(run.speed.served, run.speed.served_by) if run.speed else None,
        evaluation=run.evaluations[which],
        references=references_in(run.summary),
        interval=f"{percent(run.params.ttft.confidence)} interval",
        licence=licence_text(run.inherited),
        calibration=calibration_text(run),
        data_share=data_share(run.params.data),
        training=training_text(run),
        training_answers=training_answers(run.trained_on),
        healed=healed_text(run.exported.healed, run.params.finetune.batch_size),
        compensation=compensation_text(compensation) if compensation else "",
        versions=versions(run),
        params=_params(run),
        plan_json=json.dumps(shareable(plan.model_dump(mode="json")), indent=2, ensure_ascii=False),
    )
    return str(ModelCard(f"---\n{_metadata(run, which).to_yaml()}\n---\n\n{text}"))


def _metadata(run: Run, which: Which) -> ModelCardData:
    data = run.sources.data
    trained = which == "tuned" and run.trained
    base = run.base.id if is_hub_id(run.base.id) else None
    return ModelCardData(
        base_model=base,
        base_model_relation=RELATION if base else None,
        datasets=[data.id] if trained and data.revision else None,
        library_name="transformers",
        pipeline_tag=TASKS[run.base.takes_images],
        tags=["interlace", "layer-pruning"],
        model_name=name_of(run, which),
        eval_results=_results(run.evaluations[which], TASKS[run.base.takes_images]) or None,
        **run.inherited,
    )


def _params(run: Run) -> str:
    """Return the parameters as YAML, sections last."""
    params: Mapping[str, Any] = shareable(pinned_params(run))
    ordered = dict(sorted(params.items(), key=lambda item: isinstance(item[1], dict)))
    return as_yaml(ordered)


def _models(run: Run, which: Which) -> dict[str, str]:
    """Return the models of the score table with their headings.

    A tuned model of which nothing was tuned is the pruned one.
    """
    if which == "pruned" or not run.trained:
        return {"dense": "dense", which: "pruned" if run.plan.drop else "this model"}
    pruned = {"pruned": "pruned"} if run.plan.drop else {}
    return {"dense": "dense", **pruned, "tuned": "tuned"}


def _same_weights(run: Run) -> bool:
    """Tell whether all weights that were not trained are the dense model's, bit for bit."""
    exported = run.exported
    repaired = exported.healed or exported.compensation or exported.sparsity
    return not repaired and run.params.export.dtype == "keep"


def _overview(run: Run, which: Which) -> list[list[str]]:
    """Return the rows of the card's first table."""
    summary = run.summary
    dense_size, pruned_size, change = parameter_sizes(summary)
    rows = [
        ["decoder layers", str(summary["layers_before"]), str(summary["layers_after"])],
        ["parameters", dense_size, f"{pruned_size} ({change})"],
    ]
    if f"score_{which}" in summary:
        means = [f"{summary[f'score_{model}']:.1f}" for model in ("dense", which)]
        rows.append([f"mean score, {summary['benchmarks']} benchmarks", *means])
        if f"retention_{which}" in summary:
            rows.append(["of the dense model's", "", share_text(summary[f"retention_{which}"])])
        for name in references_in(summary):
            share = summary.get(f"retention_{which}_of_{name}")  # None where the reference scores 0
            rows.append([f"of {spelled(name)}'s", "", share_text(share)])
    if f"loss_rise_{which}" in summary:
        losses = [f"{summary[f'loss_{model}']:.3f}" for model in ("dense", which)]
        losses[1] += f" ({rise_text(summary, which)})"
        rows.append(["loss on held-out answers, nats per token", *losses])
        agreed = share_text(summary[f"agreement_{which}"])
        rows.append(["tokens with the dense model's first choice", "", agreed])
    if "ttft_dense_ms" in summary:
        dense, tuned = f"{summary['ttft_dense_ms']:.1f} ms", f"{summary['ttft_tuned_ms']:.1f} ms"
        ratio = f" ({summary['ttft_speedup']:.2f}x)" if "ttft_speedup" in summary else ""
        rows.append(["time to first token", dense, tuned + ratio])
    return rows


def _layers(run: Run, which: Which) -> list[list[str]]:
    plan = run.plan
    roles = {"dropped": plan.drop}
    roles |= (
        {"fine-tuned": plan.tune, "frozen": plan.freeze}
        if which == "tuned"
        else {"kept": plan.keep}
    )
    return [[role, ", ".join(map(str, layers)) or "none"] for role, layers in roles.items()]


def _scores(run: Run, which: Which, models: Mapping[str, str]) -> Table | None:
    """Return scores beside the reference's; None where nothing was scored."""
    if not any(evaluation.scores for evaluation in run.evaluations.values()):
        return None
    references = references_in(run.summary)
    shares = retentions(references, [which])
    rows, means = score_rows(run, [*models, *references], list(shares))
    headings = [heading.removeprefix(f"{which} ") for heading in shares.values()]
    return Table(
        ["benchmark", "samples", *models.values(), *map(spelled, references), *headings],
        [*rows, [bold(cell) if cell else "" for cell in means]],
    )


def _results(evaluation: Evaluation, task: str) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=task,
            dataset_type=slug,
            dataset_name=one_line(name),
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
        for (name, score), slug in zip(
            evaluation.scores.items(), _slugs(evaluation.scores), strict=True
        )
    ]


def _slugs(names: Iterable[str]) -> list[str]:
    """Return an identifier of each benchmark; the hub joins results of the same identifier."""
    slugs: list[str] = []
    for name in names:
        slug = re.sub(r"[^\w.-]+", "-", name.lower()).strip("-") or "benchmark"
        numbers = (f"{slug}-{number}" for number in count(2))
        slugs.append(slug if slug not in slugs else next(n for n in numbers if n not in slugs))
    return slugs
