"""Train the demo's Qwen3-VL from scratch on train.parquet and save it to model/.

    python train_model.py --params params.yaml

Trains a shallow model on the simpler sources first, then on all, then deepens it and goes on: a
deep one takes much longer to find out what images are for. Float32 on two processes of one core
each, saved as bfloat16. An interrupted run goes on from its last checkpoint.
"""

import hashlib
import json
import math
import multiprocessing
import random
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
import torch.distributed as dist
from answering import answers, exact_match, last_prompt
from datasets import Dataset
from safetensors.torch import load_file, save_file
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

from interlace.model.chat import IGNORED, Inputs, collate, encode_training
from interlace.system.documents import read_yaml

Settings = Mapping[str, Any]
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


class Share(NamedTuple):
    """The rank of a process, and the number of processes."""

    rank: int
    of: int


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


def learning_rate(step: int, phase: Settings) -> float:
    """One cycle: linear warm-up to the peak, then a half cosine to zero."""
    warmup = phase["warmup_share"] * phase["steps"]
    if step < warmup:
        return phase["peak_lr"] * (step + 1) / warmup
    done = (step - warmup) / (phase["steps"] - warmup)
    return phase["peak_lr"] * (1 + math.cos(math.pi * done)) / 2


def answer_logits(model: Any, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [N, V] and targets [N] of the N answer tokens; other logits are never computed.

    Rows are padded on the right, so causal attention alone keeps padding out of every answer.
    """
    labels = inputs.pop("labels")
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].float()
    inputs.pop("attention_mask")
    states = model.model(**inputs, use_cache=False).last_hidden_state  # [B, T, d]
    predicts = labels[:, 1:] != IGNORED
    return model.lm_head(states[:, :-1][predicts]), labels[:, 1:][predicts]


@torch.inference_mode()
def teacher_forced(model: Any, encoded: list[Inputs], pad: int) -> float:
    """Percent of rows whose answer tokens are all predicted right, given those before them."""
    right = 0
    for start in range(0, len(encoded), 64):
        inputs = collate(encoded[start : start + 64], pad_token_id=pad)
        row_of_token = (inputs["labels"][:, 1:] != IGNORED).nonzero()[:, 0]
        logits, targets = answer_logits(model, inputs)
        wrong = row_of_token[logits.argmax(-1) != targets]
        right += len(encoded[start : start + 64]) - len(wrong.unique())
    return 100 * right / len(encoded)


def build_optimizer(model: Any, phase: Settings) -> torch.optim.AdamW:
    """AdamW that decays matrices but neither norms nor biases."""
    decayed = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": phase["weight_decay"]},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=phase["peak_lr"], betas=(0.9, 0.99), foreach=True)


def save_checkpoint(folder: Path, step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Write weights, optimizer state and step beside the old checkpoint, then swap."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    save_file(weights, fresh / "weights.safetensors")
    moments = {
        f"{number}.{name}": value
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    save_file(moments, fresh / "optimizer.safetensors")
    (fresh / "step.json").write_text(json.dumps(step))
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def load_checkpoint(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `save_checkpoint` wrote; return the steps done, 0 without a checkpoint."""
    if not (folder / "step.json").exists():
        return 0
    model.load_state_dict(load_file(folder / "weights.safetensors"), strict=False)
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        number, name = key.split(".")
        states.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
    return int(json.loads((folder / "step.json").read_text()))


def flat_gradients(model: Any) -> torch.Tensor:
    """Make every gradient a view of one vector, so that one call adds it up over processes."""
    weights = list(model.parameters())
    flat = torch.zeros(sum(weight.numel() for weight in weights))
    views = flat.split([weight.numel() for weight in weights])
    for weight, view in zip(weights, views, strict=True):
        weight.grad = view.view_as(weight)
    return flat


def backward(model: Any, encoded: list[Inputs], batch: list[int], share: Share, pad: int) -> float:
    """Add this process's share of the gradient of the batch's mean loss per answer token.

    Short and long rows go separately, to spend less on padding.

    Returns:
        This process's share of the loss.
    """
    tokens = sum((encoded[i]["labels"] != IGNORED).sum().item() for i in batch)
    rows = sorted((encoded[i] for i in batch), key=lambda row: len(row["input_ids"]))
    mine = rows[share.rank :: share.of]
    total = 0.0
    for part in (mine[: len(mine) // 2], mine[len(mine) // 2 :]):
        logits, targets = answer_logits(model, collate(part, pad_token_id=pad))
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / tokens
        loss.backward()
        total += loss.item()
    return total


def fit(
    model: Any, encoded: list[Inputs], held_out: list[Inputs], pad: int, phase: Settings, at: Path
) -> None:
    """Run all steps of a phase, with a progress bar, checkpoints and a look at held-out rows.

    Every process works through its share of each batch; the sum of their gradients is the
    gradient of the batch's mean loss per answer token, so all take the same step.
    """
    share = Share(dist.get_rank(), dist.get_world_size())
    batches = schedule(len(encoded), phase, phase["seed"])
    optimizer = build_optimizer(model, phase)
    gradients = flat_gradients(model)
    done, average = load_checkpoint(at, model, optimizer), math.log(model.lm_head.out_features)
    title = f"phase {phase['number']}, {phase['layers']} layers"
    steps = tqdm(
        range(done, len(batches)), title, len(batches), initial=done, disable=share.rank > 0
    )
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, phase)
        gradients.zero_()
        loss = backward(model, encoded, batches[step], share, pad)
        dist.all_reduce(gradients)
        gradients.mul_(min(1.0, 1.0 / (gradients.norm().item() + 1e-6)))
        optimizer.step()
        average += 0.05 * (loss * share.of - average)
        steps.set_postfix(loss=f"{average:.3f}")
        last = step + 1 == len(batches)
        if share.rank == 0 and (last or (step + 1) % phase["checkpoint_every"] == 0):
            save_checkpoint(at, step + 1, model, optimizer)
            score = teacher_forced(model, held_out, pad)
            steps.write(f"step {step + 1}: loss {average:.3f}, held-out rows right {score:.1f}%")


def train_process(share: Share, meeting: str, work: Work) -> None:
    """One of the training processes, on one core; the first one saves the model."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=share.rank, world_size=share.of
    )
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
        fit(model, rows, held_out, tokenizer.pad_token_id, settings, at)
    if share.rank == 0:
        save_model(model, work.processor, work.out)
    dist.destroy_process_group()


def run_key(params: Settings, data: Path) -> str:
    """Names what a checkpoint belongs to: the parameters and the training rows."""
    digest = hashlib.sha256(json.dumps([params["seed"], params["model"], params["train"]]).encode())
    digest.update(data.read_bytes())
    return digest.hexdigest()[:12]


def train_in_parallel(work: Work, processes: int) -> None:
    """Fork the training processes, which thus share the encoded rows, and wait for them."""
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("fork")
        started = [
            context.Process(
                target=train_process, args=(Share(rank, processes), f"{folder}/meeting", work)
            )
            for rank in range(processes)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join()
    if any(process.exitcode for process in started):
        raise click.ClickException("training failed; run again to go on from the last checkpoint")


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
    at = Path(scratch) / run_key(params, Path(data) / "train.parquet")
    train_in_parallel(Work(processor, encoded, held_out, params, at, Path(out)), processes)
    shutil.rmtree(at)
    for source, score in score_held_out(Path(out), processor, rows["test"]).items():
        click.echo(f"{source:18} {score:5.1f}")


if __name__ == "__main__":
    main()
