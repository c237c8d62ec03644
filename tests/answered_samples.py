"""Rows with answers for tiny models, encoded as `answered_rows` keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
import torch
from safetensors.torch import save_file

from interlace.model.chat import IGNORED, Inputs, encode_training
from interlace.plan.record import Plan
from interlace.samples.answered_rows import AnsweredRows
from interlace.samples.rows import write_rows
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
    """The same examples with a model's own words for answers: it finds them likeliest."""
    found = []
    for example in examples:
        said = logits(model, example)[0].argmax(-1).roll(1)  # token t says token t + 1
        said[:3] = IGNORED
        found.append(example | {"labels": said})
    return found


def calibration(folder: Path, n: int = 12) -> Path:
    """Write rows as `sample` does; returns their folder."""
    own = {"domain": "native", "task": "native"}
    rows = [row | own | {"sample_id": f"{n:016x}"} for n, row in enumerate(models.rows(n))]
    write_rows(iter(rows), folder)
    return folder


def plan_of(drop: list[int], method: str = "manual", n_layers: int = 6) -> Plan:
    return select(Scores(n_layers, 3, {}, {}), method=method, drop=drop, protect_first=0)
