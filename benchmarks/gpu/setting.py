"""How large the parts of `make gpu` are, and what they give."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from interlace.speed.requests import SHAPES, Shape


@dataclass(frozen=True)
class Setting:
    """How large the parts are.

    Attributes:
        device: cuda or cpu.
        dtype: of the weights.
        large: size of the model that collects, is tuned and answers.
        small: size of the model that is exported.
        prompts: of a batch of `collect`, and the tokens of each.
        rows: of an update of `finetune` beside the plain way, and of a pass as published.
        answers: prompts of a batch of `evaluate`, and the tokens of each answer.
        shapes: requests by benchmark.
        rounds: timed rounds.
    """

    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16
    large: str = "8B"
    small: str = "4B"
    prompts: tuple[int, int] = (8, 1024)
    rows: tuple[int, int] = (4, 16)
    answers: tuple[int, int] = (32, 64)
    shapes: Mapping[str, Shape] = field(default_factory=lambda: SHAPES)
    rounds: int = 3


TINY = Setting(
    device="cpu",
    dtype=torch.float32,
    large="tiny",
    small="tiny",
    prompts=(2, 32),
    rows=(2, 3),
    answers=(2, 3),
    shapes={"POPE": Shape(64, 64, 10)},
    rounds=1,
)


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    Attributes:
        label: the thing measured.
        value: with its unit.
        reference: what to compare it with.
    """

    label: str
    value: str
    reference: str = ""


@dataclass(frozen=True)
class Result:
    """What a part measured.

    Attributes:
        figures: lines of the common table.
        table: of its own, Markdown.
    """

    figures: list[Figure]
    table: str = ""


def reset_peak() -> None:
    """Forget the peak of the card's memory so far."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def free() -> None:
    """Give back the memory of models that are no longer referenced."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak() -> str:
    """Return the peak of the card's memory since it was reset."""
    if not torch.cuda.is_available():
        return "not measured on a CPU"
    return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"


def weights(model: Any) -> str:
    """Return the size of a model's weights."""
    return f"{sum(weight.nbytes for weight in model.parameters()) / 2**30:.1f} GiB"
