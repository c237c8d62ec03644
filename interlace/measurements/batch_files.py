"""The measured batches of a window of rows, in files of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from interlace.system.resumable import intact, keep_json, kept

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class WindowBatches:
    """The batches of a window.

    Attributes:
        batches: row numbers of each batch.
        skipped: by row number, the reason why a row is in no batch.
    """

    batches: Sequence[Sequence[int]]
    skipped: Mapping[int, str]


def read_batches(folder: Path) -> WindowBatches | None:
    """Read the batches of a window; `None` if its rows are not encoded yet."""
    if not intact(folder / "batches.json"):
        return None
    fields = json.loads((folder / "batches.json").read_text(encoding="utf-8"))
    skipped = {int(row): reason for row, reason in fields["skipped"].items()}
    return WindowBatches(fields["batches"], skipped)


def write_batches(folder: Path, batches: WindowBatches) -> None:
    """Write the batches of a window."""
    skipped = {str(row): reason for row, reason in batches.skipped.items()}
    keep_json(folder / "batches.json", {"batches": batches.batches, "skipped": skipped})


def _file(folder: Path, batch: int) -> Path:
    return folder / f"batch-{batch:04d}.safetensors"


def write_batch(folder: Path, batch: int, arrays: Arrays) -> None:
    """Write the measurements of one batch."""
    with kept(_file(folder, batch)) as partial:
        save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, partial)


def pending_batches(folder: Path, batches: WindowBatches) -> list[int]:
    """Return the batches that are not measured yet."""
    return [n for n in range(len(batches.batches)) if not intact(_file(folder, n))]


def is_complete(folder: Path) -> bool:
    """Return True if all batches of a window are measured."""
    batches = read_batches(folder)
    return batches is not None and not pending_batches(folder, batches)


def read_measurements(folder: Path, batches: WindowBatches) -> list[Arrays]:
    """Read the measurements of all batches of a window."""
    return [load_file(_file(folder, n)) for n in range(len(batches.batches))]
