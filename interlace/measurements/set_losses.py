"""Losses on answers without sets of layers, over calibration rows; finished batches are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from interlace.errors import ContractError, way_to_finite
from interlace.model.decoder import deepstack_layers
from interlace.model.paths import Layers
from interlace.model.pruned_losses import SharedStates, losses_without
from interlace.samples.answered_rows import AnsweredRows, answer_tokens
from interlace.system.resumable import intact, kept

_LOSSES = pa.schema([("loss_sum", pa.float64()), ("n_tokens", pa.int64())])


def set_losses(
    model: Any,
    rows: AnsweredRows,
    drops: Sequence[Layers],
    folder: Path,
    advance: Callable[[], object],
    shared_states: Mapping[int, SharedStates] | None = None,
) -> tuple[list[float], int]:
    """Measure the loss without each of some sets of layers.

    Args:
        model: the dense model; it is unchanged afterwards.
        rows: the loss is measured on these.
        drops: the sets, 0-based layers, sorted.
        folder: for the losses of finished batches, which are not measured again.
        advance: called after each batch.
        shared_states: by batch, kept between calls that measure one set after another.

    Returns:
        Sums over the answer tokens of all rows, in the order of `drops`, and the number of tokens.

    Raises:
        ContractError: a loss is not finite.
    """
    sums, tokens = [0.0] * len(drops), 0
    for number in range(len(rows.groups)):
        path = folder / f"batch-{number:05d}.parquet"
        if not intact(path):
            shared = shared_states[number] if shared_states else None
            table = _losses_of_batch(model, rows, number, drops, shared)
            with kept(path) as partial:
                pq.write_table(table, partial)
        losses = pq.read_table(path)
        sums = [a + b for a, b in zip(sums, losses["loss_sum"].to_pylist(), strict=True)]
        tokens += losses["n_tokens"][0].as_py()
        advance()
    return sums, tokens


def _losses_of_batch(
    model: Any,
    rows: AnsweredRows,
    number: int,
    drops: Sequence[Layers],
    shared_states: SharedStates | None,
) -> pa.Table:
    batch = rows.batch(number, model.device)
    losses = losses_without(model, batch, drops, deepstack_layers(model), shared_states)
    for drop, loss in zip(drops, losses, strict=True):
        if not math.isfinite(loss):
            layers = ", ".join(map(str, drop))
            raise ContractError(
                f"the loss on answers without layers {layers} is not finite in"
                f" {in_type(model.dtype)}"
            )
    columns = [losses, [answer_tokens(batch["labels"])] * len(losses)]
    return pa.table(columns, schema=_LOSSES)


def dtype_name(dtype: torch.dtype) -> str:
    """Return a dtype's name as users write it: `float32`."""
    return str(dtype).removeprefix("torch.")


def in_type(dtype: torch.dtype) -> str:
    """Name a dtype, with advice for numbers that are not finite in it."""
    return f"{dtype_name(dtype)}; {way_to_finite(dtype_name(dtype), 'dtype')}"
