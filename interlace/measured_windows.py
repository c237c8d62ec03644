"""What is kept of unfinished work: a folder per window, a file per batch, each whole or absent.

`plan.json` says which rows of the window make up which batch, and which cannot be read and why;
`batch-0000.safetensors` holds what was measured on the first batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from interlace.outputs import whole, write_json

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Plan:
    """How a window's rows are batched.

    Attributes:
        batches: row numbers of each batch.
        left_out: why a row is in none, by its number.
    """

    batches: Sequence[Sequence[int]]
    left_out: Mapping[int, str]


def read_plan(folder: Path) -> Plan | None:
    """The plan of a window, if it was made."""
    try:
        said = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Plan(said["batches"], {int(row): why for row, why in said["left_out"].items()})


def write_plan(folder: Path, plan: Plan) -> None:
    """Keep the plan of a window."""
    left_out = {str(row): why for row, why in plan.left_out.items()}
    write_json(folder / "plan.json", {"batches": plan.batches, "left_out": left_out})


def _file(folder: Path, batch: int) -> Path:
    return folder / f"batch-{batch:04d}.safetensors"


def write_batch(folder: Path, batch: int, measured: Arrays) -> None:
    """Keep what was measured on a batch."""
    with whole(_file(folder, batch)) as partial:
        save_file({name: np.ascontiguousarray(value) for name, value in measured.items()}, partial)


def batches_left(folder: Path, plan: Plan) -> list[int]:
    """Batches that are still to be measured."""
    return [n for n in range(len(plan.batches)) if not _file(folder, n).is_file()]


def is_measured(folder: Path) -> bool:
    """Whether nothing is left to do for a window."""
    plan = read_plan(folder)
    return plan is not None and not batches_left(folder, plan)


def read_measured(folder: Path, plan: Plan) -> list[Arrays]:
    """What was measured on each batch of a window."""
    return [load_file(_file(folder, n)) for n in range(len(plan.batches))]
