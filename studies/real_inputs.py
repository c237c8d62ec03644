"""Rows of the study on real weights: those that choose layers, and those that judge the choices."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.model.chat import encode_training
from interlace.samples.answered_rows import answer_tokens
from interlace.samples.order import shuffle_key
from interlace.samples.rows import sample_id, write_rows
from studies.real_bench import Inputs, fitted_rows

SEED = 0
Row = dict[str, Any]


def prepare(
    model: Path,
    train: Path,
    test: Path,
    scratch: Path,
    *,
    heldout_tokens: int,
    calibration_tokens: int,
    loss_tokens: int,
    search_tokens: int,
    fitted_tokens: int,
) -> Inputs:
    """Draw both sets of rows in a seeded order, and count the rows of each measurement.

    Args:
        model: the dense checkpoint.
        train: Parquet file of rows that layers are chosen by.
        test: Parquet file of rows that models are scored on.
        scratch: folder of the study.
        heldout_tokens: answer tokens to score on, at least.
        calibration_tokens: answer tokens of the calibration set, at least.
        loss_tokens: answer tokens that `sensitivity` measures the loss on, at least.
        search_tokens: the same for `search`.
        fitted_tokens: answer tokens of rows that weights are fitted on, at least.
    """
    checkpoint = Checkpoint(model)
    processor = checkpoint.open_processor()
    heldout = list(until(processor, in_order(test, "heldout"), heldout_tokens))
    calibration = list(until(processor, in_order(train, "calibration"), calibration_tokens))
    by_id = sorted(calibration, key=lambda row: str(row["sample_id"]))
    loss_rows, search_rows, rows_to_fit = (
        sum(1 for _ in until(processor, by_id, tokens))
        for tokens in (loss_tokens, search_tokens, fitted_tokens)
    )
    ids = [row["sample_id"] for row in (*heldout, *calibration)]
    weights = [file_digest(path) for path in sorted(model.glob("*.safetensors"))]
    digest = hashlib.sha256(" ".join([*weights, *ids]).encode()).hexdigest()[:16]
    folder = scratch / digest
    for name, rows in (("heldout", heldout), ("calibration", calibration)):
        if not (folder / name).is_dir():
            write_rows(rows, folder / name)
    inputs = Inputs(
        model=model,
        n_layers=checkpoint.architecture.n_layers,
        heldout=folder / "heldout",
        calibration=folder / "calibration",
        loss_rows=loss_rows,
        search_rows=search_rows,
        fitted_rows=rows_to_fit,
        scratch=folder,
    )
    fitted_rows(inputs, processor)  # written here, where no other process writes them, too
    return inputs


def in_order(path: Path, purpose: str) -> Iterator[Row]:
    """Yield a file's rows in a random order that a seed and their content decide."""
    rows = {sample_id(row): row for row in pq.read_table(path).to_pylist()}
    for name in sorted(rows, key=lambda name: shuffle_key(SEED, purpose, name)):
        yield rows[name] | {"sample_id": name, "domain": "native", "task": None}


def until(processor: Any, rows: Iterable[Row], tokens: int) -> Iterator[Row]:
    """Yield rows until they hold so many answer tokens."""
    total = 0
    for row in rows:
        if total >= tokens:
            return
        total += answer_tokens(encode_training(processor, row)["labels"])
        yield row


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
