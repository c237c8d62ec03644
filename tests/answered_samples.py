"""Rows with answers for tiny models, and the loss on their answers, computed slowly."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
import torch
from safetensors.torch import save_file

from interlace.model.bypass import bypass
from interlace.model.chat import IGNORED, Inputs, encode_training
from interlace.plan.record import Plan
from interlace.samples.answered_rows import AnsweredRows
from interlace.samples.rows import sample_id, write_rows
from interlace.scores.table import Scores
from interlace.selection.select import select


def saved(examples: Sequence[Inputs], folder: Path, batch_tokens: int = 400) -> AnsweredRows:
    """The rows of some encoded examples."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, example in enumerate(examples):
        paths.append(folder / f"{number:016x}.safetensors")
        save_file({name: value.contiguous() for name, value in example.items()}, paths[-1])
    lengths = [example["input_ids"].shape[0] for example in examples]
    return AnsweredRows(paths, lengths, batch_tokens, 0, 0)


def encoded(processor: Any, n: int, **kwargs: Any) -> list[Inputs]:
    return [encode_training(processor, row) for row in models.rows(n, **kwargs)]


@torch.inference_mode()
def logits(model: Any, example: Inputs) -> torch.Tensor:
    """Of one example, [1, T, V]."""
    batch = {k: v[None] if v.ndim == 1 else v for k, v in example.items() if k != "labels"}
    return model(**batch).logits


def answered_by(model: Any, examples: Sequence[Inputs]) -> list[Inputs]:
    """The same examples with a model's likeliest words for answers."""
    answered = []
    for example in examples:
        labels = logits(model, example)[0].argmax(-1).roll(1)  # token t predicts token t + 1
        labels[:3] = IGNORED
        answered.append(example | {"labels": labels})
    return answered


def slow_loss(model: Any, batch: Inputs) -> torch.Tensor:
    """Sum of cross-entropies over answer tokens, row by row and token by token, in a full pass."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    log_probabilities = model(**inputs, use_cache=False).logits.double().log_softmax(-1)
    total = torch.zeros((), dtype=torch.float64)
    for row, labels in enumerate(batch["labels"].tolist()):
        for t, label in enumerate(labels[1:]):  # token t predicts the label after it
            if label != IGNORED:
                total = total - log_probabilities[row, t, label]
    return total


@torch.inference_mode()
def loss_of_pruned(model: Any, batch: Inputs, drop: list[int]) -> float:
    pruned = copy.deepcopy(model)
    bypass(pruned, drop)
    return slow_loss(pruned, batch).item()


def snapshot(model: Any) -> list[Any]:
    """All that a bypass changes."""
    text = model.config.get_text_config(decoder=True)
    numbers = [getattr(module, "layer_idx", None) for module in model.modules()]
    return [model.get_decoder().layers, list(model.get_decoder().layers), numbers, text.to_dict()]


def calibration(folder: Path, rows: Sequence[dict[str, Any]] = ()) -> Path:
    """Write rows, twelve unless others are given, as `sample` does; returns their folder."""
    fields = {"domain": "native", "task": "native"}
    rows = rows or models.rows(12)
    write_rows((fields | row | {"sample_id": sample_id(row)} for row in rows), folder)
    return folder


def plan_of(drop: list[int], method: str = "manual", n_layers: int = 6) -> Plan:
    return select(Scores(n_layers, 3, {}, {}), method=method, drop=drop, protect_first=0)
