"""Examine the demo: score the dense model, and the model without a quarter of its layers.

    python examine.py --params params.yaml

Writes examination.json and the tables between the markers in README.md. Nothing is tuned here.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import torch
from answering import answers, exact_match, last_prompt
from datasets import Dataset
from questions import MATH_SOURCES, PRACTICE, SOURCES
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from interlace.measurements.cosines import measure_batch
from interlace.model.batches import batches
from interlace.model.bypass import bypass
from interlace.model.chat import collate, encode_prompt
from interlace.params.measuring import Collect
from interlace.selection.select import select
from interlace.system.documents import read_yaml

SPANS = (1, 2, 3)
BEGIN, END = "<!-- examination: begin -->\n", "<!-- examination: end -->\n"


def similarity(model: Any, processor: Any, rows: Dataset) -> dict[tuple[int, int], float]:
    """`S_span(first)` over the rows, from true inputs and outputs of all layers."""
    encoded = [encode_prompt(processor, row) for row in tqdm(rows, desc="encode", unit="row")]
    groups = batches([len(row["input_ids"]) for row in encoded], 4096)
    found = []
    for group in tqdm(groups, desc="similarity", unit="batch"):
        batch = collate([encoded[i] for i in group], pad_token_id=processor.tokenizer.pad_token_id)
        measured = measure_batch(model, batch, Collect(max_span=max(SPANS)), pooled=False)
        found.append(measured["cosines"][:, :, 0])  # [B, S], mean over all tokens
    means = np.concatenate(found).mean(axis=0)  # [S]
    spans = [(int(first), int(span)) for first, span in measured["spans"]]
    return dict(zip(spans, means.tolist(), strict=True))


def score_table(found: Mapping[tuple[int, int], float], config: Any) -> pa.Table:
    """Return the similarities as the table that `interlace.select` reads."""
    columns = {
        "criterion": ["cosine"] * len(found),
        "first": [first for first, _ in found],
        "span": [span for _, span in found],
        "value": list(found.values()),
    }
    deepstack = len(config.vision_config.deepstack_visual_indexes)
    about = {"n_layers": config.text_config.num_hidden_layers, "deepstack_layers": deepstack}
    return pa.table(columns).replace_schema_metadata({k: str(v) for k, v in about.items()})


def plans(scores: pa.Table, params: Mapping[str, Any]) -> dict[str, list[int]]:
    """Layers that each method drops; `unprotected` may drop those that DeepStack feeds."""
    ratio = params["ratio"]
    found = {
        "interlace": select(scores, ratio=ratio).drop,
        "interlace, unprotected": select(scores, ratio=ratio, protect_first=0).drop,
        "consecutive": select(scores, method="consecutive", ratio=ratio).drop,
    }
    for seed in params["random_seeds"]:
        plan = select(scores, method="random", ratio=ratio, seed=seed)
        found[f"random, seed {seed}"] = plan.drop
    return found


def score_without(
    model: Any, drop: list[int], processor: Any, prompts: list[Any], rows: Dataset
) -> dict[str, float]:
    """Exact match per source with these layers taken out."""
    pruned = copy.deepcopy(model)
    if drop:
        bypass(pruned, drop)
    return exact_match(rows, answers(pruned, processor, prompts))


def examine(params: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Everything examination.json holds."""
    model = AutoModelForImageTextToText.from_pretrained(folder / "model", dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder / "model")
    train = Dataset.from_parquet(str(folder / "train.parquet"))
    test = Dataset.from_parquet(str(folder / "test.parquet"))
    calibration = train.shuffle(seed=params["seed"]).select(
        range(params["examine"]["calibration_rows"])
    )
    model.eval()
    found = similarity(model, processor, calibration)
    prompts = [last_prompt(processor, row) for row in tqdm(test, desc="prompts", unit="row")]
    drops = plans(score_table(found, model.config), params["examine"])
    without = {}
    for name, drop in drops.items():
        scores = score_without(model, drop, processor, prompts, test)
        without[name] = {"drop": drop, "exact_match": scores}
    return {
        "ratio": params["examine"]["ratio"],
        "dense": score_without(model, [], processor, prompts, test),
        "similarity": {
            f"S_{span}": [value for (_, p), value in sorted(found.items()) if p == span]
            for span in SPANS
        },
        "before_tuning": without,
    }


def tables(found: Mapping[str, Any]) -> str:
    """Format the examination as Markdown."""
    without = found["before_tuning"]
    lines = ["| source | math | dense | " + " | ".join(list(without)[:3]) + " | random, mean |"]
    lines.append("|---|---|" + "---:|" * 5)
    draws = [entry["exact_match"] for name, entry in without.items() if name.startswith("random")]
    held_out = [source for source in SOURCES if source not in PRACTICE]
    for source in [*held_out, "all"]:
        named = [entry["exact_match"][source] for entry in list(without.values())[:3]]
        values = [found["dense"][source], *named, float(np.mean([draw[source] for draw in draws]))]
        math = "yes" if source in MATH_SOURCES else ""
        name = source if source == "all" else f"`{source}`"
        lines.append(
            f"| {name} | {math} | " + " | ".join(f"{value:.1f}" for value in values) + " |"
        )
    lines += ["", "| method | layers dropped | exact match |", "|---|---|---:|"]
    lines.append(f"| dense | none | {found['dense']['all']:.1f} |")
    for name, entry in without.items():
        layers = " ".join(map(str, entry["drop"]))
        lines.append(f"| {name} | {layers} | {entry['exact_match']['all']:.1f} |")
    lines += ["", "| layer | S_1 | S_2 | S_3 |", "|---:|---:|---:|---:|"]
    profile = found["similarity"]
    for layer in range(len(profile["S_1"])):
        values = [profile[f"S_{p}"][layer : layer + 1] for p in SPANS]
        cells = " | ".join(f"{value[0]:.3f}" if value else "" for value in values)
        lines.append(f"| {layer} | {cells} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--params", "params_path", default="params.yaml", show_default=True)
@click.option("--folder", default=".", show_default=True, help="Where data and model are.")
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
def main(params_path: str, folder: str, threads: int) -> None:
    """Measure, then write the results down."""
    torch.set_num_threads(threads)
    found = examine(read_yaml(Path(params_path)), Path(folder))
    rounded = json.loads(json.dumps(found), parse_float=lambda number: round(float(number), 4))
    (Path(folder) / "examination.json").write_text(json.dumps(rounded, indent=1) + "\n")
    readme = Path(folder) / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    readme.write_text(before + BEGIN + tables(found) + END + rest.partition(END)[2])
    click.echo(tables(found))


if __name__ == "__main__":
    main()
