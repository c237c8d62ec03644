"""What a model card says of how the checkpoint was made, and how to make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from interlace.params.inputs import Data
from interlace.report.card.sections import linked, table
from interlace.report.facts.decision import listed, percent
from interlace.report.facts.run import Which
from interlace.scores.table import CKA, MATH, NONMATH, POOLED

if TYPE_CHECKING:
    from interlace.report.facts.run import Run


PROBED = {MATH, NONMATH, POOLED, CKA}  # criteria that are measured on probes


def making(run: Run, which: Which) -> list[str]:
    """What it was made from, and what was done to the weights."""
    data, rows = run.sources["pinned_data"], run.rows
    share = _share(Data.model_validate({"id": data["id"]} | (run.params.get("data") or {})))
    facts = [["base model", identity(run.base)]]
    needs = set(run.rule.needs)
    if needs & PROBED:
        probes = (run.params.get("probes") or {}).get("per_task")
        facts.append(["calibration", f"{probes:,} probes of each task, on images of the data"])
    elif needs:
        facts.append(["calibration", f"{rows['calibration']:,} rows, drawn from the data"])
    facts.append(["data", f"{share}{identity(data)}: {rows['train']:,} rows"])
    if which == "tuned" and run.plan.tune:
        facts.append(["fine-tuning", _training(run.params.get("finetune") or {})])
    facts += [[what, text] for what, text in _repairs(run.exported) if text]
    return ["## How it was made", table(["", ""], facts, numbers=False)]


def _share(data: Data) -> str:
    """Which part of a data set was drawn."""
    share = f"{percent(data.share)} of " if data.share != 1 else ""
    weighted = "weighted " if data.weights else ""
    named = f"{', '.join(data.subsets)} in " if data.subsets else ""
    return f"{weighted}{share}{named}"


def _training(given: Mapping[str, Any]) -> str:
    """The recipe in one line."""
    told = ["only the layers named above"]
    if steps := given.get("local_steps", 0):
        rate = given.get("local_learning_rate")
        told.append(
            f"{steps:,} steps of {given.get('batch_size')} rows layer by layer against the dense"
            f" model, learning rate {rate:g}"
        )
    if given.get("max_steps", -1):
        told.append(_end_to_end(given))
    return f"{told[0]}: {'; then '.join(told[1:]) or 'no update'}"


def _end_to_end(given: Mapping[str, Any]) -> str:
    steps, epochs, rank = (given.get(name, 0) for name in ("max_steps", "epochs", "lora_rank"))
    length = f"{steps:,} steps" if steps > 0 else f"{epochs:g} epoch{'s' * (epochs != 1)}"
    adapters = f", adapters of rank {rank}, merged" if rank else ""
    teacher = [
        what
        for name, what in (("distill_logits", "answers"), ("distill_states", "anchors' states"))
        if given.get(name)
    ]
    taught = f" and on the distance to the dense model's {' and '.join(teacher)}" if teacher else ""
    return (
        f"{length} of {given.get('batch_size')} rows, AdamW,"
        f" learning rate {given.get('learning_rate'):g}{adapters}, loss on the answers{taught}"
    )


def _repairs(exported: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What `export` did beyond leaving layers out, and how it was checked."""
    parity, folded = exported.get("parity"), exported.get("compensation")
    sparse = exported.get("sparsity")
    return [
        ("compensation", _compensation(folded) if folded else ""),
        ("sparsity", f"{sparse['method']}: {sparse['tensors']} weight matrices" if sparse else ""),
        ("checked", _parity(parity) if parity else ""),
    ]


def _compensation(folded: Mapping[str, Any]) -> str:
    """Which runs of dropped layers were made up for in the layer in front of them."""
    told = [
        f"{listed(cut['cut'])} into {cut['folded_into']} (residual {cut['residual_before']:.3g}"
        f" to {cut['residual_after']:.3g})"
        for cut in folded["cuts"]
        if cut["kept"]
    ]
    left = [listed(cut["cut"]) for cut in folded["cuts"] if not cut["kept"]]
    told += [f"not {', '.join(left)}: no help"] if left else []
    return f"{folded['method']}: dropped layers folded, {'; '.join(told)}"


def _parity(parity: Mapping[str, Any]) -> str:
    if not parity["samples"]:
        return "not checked against the dense model without the layers"
    apart = parity["greatest_difference"]
    same = "bit for bit" if not apart else f"to within {apart:.3g}"
    return (
        f"the pruned checkpoint computes what the dense model computes without the layers, {same},"
        f" on {parity['samples']} samples of {parity['tokens']:,} tokens"
    )


def reproduction(params: Mapping[str, Any], plan: Any, versions: Mapping[str, str]) -> list[str]:
    """The commands that make it again, with everything that was set.

    Args:
        params: plain values of the parameter file.
        plan: plain values of the plan.
        versions: of the libraries that it was made with.
    """
    commands = (
        "git clone INTERLACE interlace    # Interlace's repository\n"
        "cd interlace\n"
        "make environment                 # builds .venv from requirements.lock\n"
        "source .venv/bin/activate\n"
        "cp ~/params.yaml params.yaml     # the parameters below, saved\n"
        "dvc repro"
    )
    used = ", ".join(f"{name} {value}" for name, value in versions.items())
    ordered = dict(sorted(params.items(), key=lambda item: isinstance(item[1], dict)))
    told = yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True)
    return [
        "## Reproduce it",
        f"Made with {used}. The checkpoints are `artifacts/pruned` and `artifacts/tuned`.",
        f"```sh\n{commands}\n```",
        f"<details><summary>params.yaml</summary>\n\n```yaml\n{told}```\n\n</details>",
        "<details><summary>The plan: every group of layers with its scores</summary>\n\n"
        f"```json\n{json.dumps(plan, indent=2, ensure_ascii=False)}\n```\n\n</details>",
    ]


def identity(source: Mapping[str, Any]) -> str:
    """A source and which state of it: a revision, or the hashes of its weights or rows."""
    if "revision" in source:
        return f"{linked(source)}, revision `{source['revision']}`"
    main = {
        name: file["sha256"]
        for name, file in source.get("files", {}).items()
        if name.endswith((".safetensors", ".parquet"))
    }
    if len(main) == 1:
        return f"{linked(source)}, sha256 `{next(iter(main.values()))[:16]}`"
    shown = [f"`{name}` sha256 `{value[:16]}`" for name, value in list(main.items())[:3]]
    more = [f"and {len(main) - 3} more files"] if len(main) > 3 else []
    return ", ".join([linked(source), *shown, *more])
