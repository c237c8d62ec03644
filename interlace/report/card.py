"""The README of a tuned checkpoint: metadata the hub understands, the scores, the decision."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from interlace.plan import Plan
from interlace.report.summary import Metrics, benchmarks_of, references_in
from interlace.report.wording import asked, notes

TASK = "image-text-to-text"

BODY = """
# {name}

[{base_model}]({link}) {what}; every other weight is the
dense model's, bit for bit. Made with Interlace.

## Use it

A stock checkpoint: nothing but transformers is needed. Put this folder's path or its hub id in
place of `MODEL`.

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("MODEL")
processor = AutoProcessor.from_pretrained("MODEL")
```

## Layers

{asked}. Positions in the dense decoder, from 0.

| | layers |
|---|---|
| dropped | {drop} |
| tuned | {tune} |
| frozen | {freeze} |
{notes}
## Scores

0 to 100. "Of dense" is relative to the dense model, {base_model}, measured in the same run; its
mean is a mean of ratios.{reference}

{scores}
{left_out}
## Size and speed

{facts}

## How it was made

<details><summary>Parameters</summary>

```yaml
{params}```

</details>

<details><summary>Plan</summary>

```json
{plan}
```

</details>
"""


def model_card(
    *,
    name: str,
    base_model: str,
    summary: Metrics,
    plan: Plan,
    params: Mapping[str, Any],
    left_out: Mapping[str, str] | None = None,
) -> str:
    """Write the model card of a tuned checkpoint.

    Args:
        name: of the tuned model.
        base_model: hub id or path of the dense model, as the user gave it.
        summary: what `summarise` returned.
        plan: which layers were dropped, tuned and frozen.
        params: plain values of the parameter file, embedded as they are.
        left_out: benchmarks without a result, and why.

    Returns:
        The text of README.md; the same inputs give the same text.
    """
    data = ModelCardData(
        base_model=base_model,
        library_name="transformers",
        pipeline_tag=TASK,
        tags=["interlace", "layer-pruning"],
        model_name=name,
        eval_results=_results(summary) or None,
    )
    hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", base_model)
    body = BODY.format(
        name=name,
        base_model=base_model,
        link=f"https://huggingface.co/{base_model}" if hub_id else base_model,
        what=_what(plan),
        asked=asked(plan),
        notes="".join(f"\n- {note}" for note in notes(plan)) + "\n",
        drop=_listed(plan.drop),
        tune=_listed(plan.tune),
        freeze=_listed(plan.freeze),
        reference=_reference(summary),
        scores=_scores(summary),
        left_out=_left_out(left_out or {}),
        facts="\n".join(f"- {fact}" for fact in _facts(summary)),
        params=yaml.safe_dump(dict(params), sort_keys=False, allow_unicode=True),
        plan=plan.model_dump_json(indent=2),
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n{body}"))


def _what(plan: Plan) -> str:
    """What became of the dense model's layers."""
    tuned = len(plan.tune) or "none"
    if not plan.drop:
        return f"with all of its {plan.n_layers} decoder layers, {tuned} of them fine-tuned"
    return (
        f"without {len(plan.drop)} of its {plan.n_layers} decoder layers. Of the {len(plan.keep)}"
        f" left, {tuned} were fine-tuned"
    )


def _results(summary: Metrics) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=re.sub(r"[^\w.-]+", "-", name.lower()).strip("-") or "benchmark",
            dataset_name=name,
            metric_type="score",
            metric_name="score (0 to 100)",
            metric_value=round(float(summary[f"tuned/{name}"]), 2),
        )
        for name in benchmarks_of(summary)
        if f"tuned/{name}" in summary
    ]


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers)) or "none"


def _scores(summary: Metrics) -> str:
    models = ["dense", "pruned", "tuned"]
    kept = {"retention_pruned": "pruned of dense", "retention_tuned": "tuned of dense"}
    for name in references_in(summary):
        models.append(name)
        for model in ("pruned", "tuned"):
            kept[f"retention_{model}_of_{name}"] = f"{model} of {_spelled(name)}"
    headings = [_spelled(name) for name in models] + [*kept.values()]
    lines = [f"| benchmark | {' | '.join(headings)} |", f"|---|{'--:|' * len(headings)}"]
    for name in benchmarks_of(summary):
        keys = [f"{key}/{name}" for key in (*models, *kept)]
        lines.append(f"| {name} | {_cells(summary, keys)} |")
    means = [*(f"score_{name}" for name in models), *kept]
    lines.append(f"| **mean** | {_cells(summary, means)} |")
    return "\n".join(lines)


def _spelled(model: str) -> str:
    return model.replace("_", "-")


def _reference(summary: Metrics) -> str:
    """What the reference is, where there is one."""
    layers = {"dense_ft": "as many of its last layers as were dropped", "dense_sft": "all layers"}
    return "".join(
        f" {_spelled(name)} is the dense model with {layers[name]} tuned by the same recipe."
        for name in references_in(summary)
    )


def _cells(summary: Metrics, keys: Sequence[str]) -> str:
    return " | ".join(
        "\u2013" if key not in summary else f"{summary[key]:.1f}{'%' * key.startswith('retention')}"
        for key in keys
    )


def _left_out(reasons: Mapping[str, str]) -> str:
    if not reasons:
        return ""
    named = "".join(f"\n- {name}: {why}" for name, why in reasons.items())
    return f"\nLeft out of the means:\n{named}\n"


def _facts(summary: Metrics) -> list[str]:
    before, after = summary["parameters_before"], summary["parameters_after"]
    facts = [
        f"decoder layers: {summary['layers_before']} before, {summary['layers_after']} after",
        f"parameters: {before:,} before, {after:,} after ({100 * (after / before - 1):+.1f}%)",
    ]
    if "ttft_speedup" in summary:
        facts.append(
            f"time to first token: {summary['ttft_speedup']:.2f} times as fast as the dense model"
            f" (interval {summary['ttft_speedup_low']:.2f} to {summary['ttft_speedup_high']:.2f};"
            f" {summary['ttft_ideal']:.2f} by FLOPs)"
        )
    return facts
