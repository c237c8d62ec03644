"""Train the demo's Qwen3-VL from scratch on train.parquet and save it to model/.

    python train_model.py --params params.yaml

Trains a shallow model on the simpler sources first, then on all, then deepens it and goes on: a
deep one takes much longer to find out what images are for. Float32 on two processes of one core
each, saved as bfloat16. An interrupted run goes on from its last checkpoint.
"""

import json
import random
import shutil
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from answering import answers, exact_match, last_prompt
from datasets import Dataset
from fitting import Settings, Share, fit, in_parallel, run_key
from teacher_forcing import backward, teacher_forced
from tiny_model import (
    build_model,
    build_processor,
    build_tokenizer,
    conversations,
    deepened,
)
from tqdm import tqdm
from transformers import AutoModelForImageTextToText
from transformers.utils import logging as transformers_logging

from interlace.model.chat import Inputs, encode_training
from interlace.system.documents import read_yaml

CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: image-text-to-text
---

# Demo

A Qwen3-VL of 24 decoder layers, trained from scratch on the demo's handwriting, charts and shapes.
"""


class Encoded(NamedTuple):
    """Encoded rows and where they come from."""

    inputs: list[Inputs]
    sources: list[str]

    def of(self, sources: list[str] | None) -> list[Inputs]:
        """Return the rows of some sources, or all."""
        return [
            row
            for row, source in zip(self.inputs, self.sources, strict=True)
            if sources is None or source in sources
        ]


class Work(NamedTuple):
    """The inputs of a training process."""

    processor: Any
    train: Encoded
    held_out: Encoded
    params: Settings
    scratch: Path
    out: Path


def encode_all(processor: Any, rows: Dataset, what: str) -> Encoded:
    """Encode every row once; pixels are kept in float16 to halve their memory."""
    encoded = []
    for row in tqdm(rows, desc=f"encode {what}", unit="row"):
        inputs = encode_training(processor, row)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].half()
        encoded.append(inputs)
    return Encoded(encoded, list(rows["source"]))


def batches_of_epoch(rows: int, batch: int, seed: int) -> list[list[int]]:
    """Row numbers of each batch, at random: batches of one length would be of one source."""
    order = list(range(rows))
    random.Random(seed).shuffle(order)
    return [order[start : start + batch] for start in range(0, rows - batch + 1, batch)]


def schedule(rows: int, phase: Settings, seed: int) -> list[list[int]]:
    """Yield the batch of each step, by the seed, so that a resumed run sees the same ones."""
    found: list[list[int]] = []
    epoch = 0
    while len(found) < phase["steps"]:
        found += batches_of_epoch(rows, phase["batch"], seed * 1000 + phase["number"] * 100 + epoch)
        epoch += 1
    return found[: phase["steps"]]


def fit_phase(
    model: Any, encoded: list[Inputs], held_out: list[Inputs], pad: int, phase: Settings, at: Path
) -> None:
    """Run all steps of a phase on these rows."""
    batches = schedule(len(encoded), phase, phase["seed"])

    def add_gradient(step: int, share: Share) -> float:
        return backward(model, [encoded[i] for i in batches[step]], share, pad)

    def score() -> str:
        return f"held-out rows right {teacher_forced(model, held_out, pad):.1f}%"

    title = f"phase {phase['number']}, {phase['layers']} layers"
    fit(model, add_gradient, score, phase, at, title)


def train_process(share: Share, work: Work) -> None:
    """Train all phases in one of the processes; the first one saves the model."""
    tokenizer, params = work.processor.tokenizer, work.params
    common = {name: value for name, value in params["train"].items() if name != "phases"}
    model = None
    for number, phase in enumerate(params["train"]["phases"]):
        if model is None:
            sizes = params["model"] | {"layers": phase["layers"]}
            model = build_model(sizes, tokenizer, params["seed"])
        elif phase["layers"] != len(model.model.language_model.layers):
            model = deepened(model, params["model"], phase["layers"], tokenizer)
        settings = common | phase | {"seed": params["seed"], "number": number}
        asked = phase.get("sources")
        rows, held_out = work.train.of(asked), work.held_out.of(asked)
        at = work.scratch / f"phase-{number}"
        fit_phase(model, rows, held_out, tokenizer.pad_token_id, settings, at)
    if share.rank == 0:
        save_model(model, work.processor, work.out)


def save_model(model: Any, processor: Any, out: Path) -> None:
    """Save a bfloat16 copy as a stock checkpoint, and drop the float32 one."""
    shutil.rmtree(out, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(out)
    processor.save_pretrained(out)
    (out / "README.md").write_text(CARD)
    config = json.loads((out / "config.json").read_text())
    config["text_config"]["tie_word_embeddings"] = True  # versions disagree on which one counts
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def score_held_out(out: Path, processor: Any, rows: Dataset) -> dict[str, float]:
    """Exact match per source of the checkpoint as saved, computed in float32."""
    model = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32).eval()
    prompts = [last_prompt(processor, row) for row in tqdm(rows, desc="prompts", unit="row")]
    return exact_match(rows, answers(model, processor, prompts))


@click.command()
@click.option("--params", "params_path", default="params.yaml", show_default=True)
@click.option("--data", default=".", show_default=True, help="Folder of the two Parquet files.")
@click.option("--out", default="model", show_default=True, help="Folder of the checkpoint.")
@click.option("--scratch", default=".training", show_default=True, help="To resume from.")
@click.option(
    "--processes", default=2, show_default=True, help="Training processes, one core each."
)
def main(params_path: str, data: str, out: str, scratch: str, processes: int) -> None:
    """Train, save and score the model."""
    torch.set_num_threads(1)  # forked processes cannot use a pool of threads that exists already
    transformers_logging.set_verbosity_error()
    params = read_yaml(Path(params_path))
    rows = {split: Dataset.from_parquet(f"{data}/{split}.parquet") for split in ("train", "test")}
    texts = conversations(rows["train"].select_columns(["texts"]))
    processor = build_processor(build_tokenizer(texts, params["model"]["vocabulary"]))
    encoded = encode_all(processor, rows["train"], "train")
    held_out = encode_all(processor, rows["test"].select(range(512)), "held-out")
    settings = [params["seed"], params["model"], params["train"]]
    at = Path(scratch) / run_key(settings, Path(data) / "train.parquet")
    work = Work(processor, encoded, held_out, params, at, Path(out))
    in_parallel(partial(train_process, work=work), processes)
    shutil.rmtree(at)
    for source, score in score_held_out(Path(out), processor, rows["test"]).items():
        click.echo(f"{source:18} {score:5.1f}")


if __name__ == "__main__":
    main()
