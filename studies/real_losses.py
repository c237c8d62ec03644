"""Losses of models on held-out answers, row by row, so that models are compared in pairs.

R rows, N answer tokens in all. Errors are those of `interlace.evaluation.scores.losses.rate`, with
rows as clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from interlace.model.row_losses import RowLoss
from interlace.scores.rate import rate
from interlace.system.resumable import intact, kept

_SCHEMA = pa.schema(
    [("loss", pa.float64()), ("n_tokens", pa.int64()), ("choices", pa.list_(pa.int32()))]
)


@dataclass(frozen=True)
class HeldoutLosses:
    """One model's losses.

    Attributes:
        loss: sum of cross-entropies by row, nats, [R].
        n_tokens: answer tokens by row, [R].
        choices: the likeliest token at each answer position, [N], rows one after another.
    """

    loss: NDArray[np.float64]
    n_tokens: NDArray[np.int64]
    choices: NDArray[np.int32]

    @property
    def mean(self) -> float:
        """Return the loss per answer token, nats."""
        return float(self.loss.sum() / self.n_tokens.sum())

    @classmethod
    def of_rows(cls, rows: Sequence[RowLoss]) -> HeldoutLosses:
        """Gather the losses of rows."""
        return cls(
            np.array([row.loss for row in rows]),
            np.array([len(row.tokens) for row in rows]),
            np.concatenate([np.array(row.choices, np.int32) for row in rows]),
        )

    def write(self, path: Path) -> None:
        """Keep the losses in a Parquet file of one record per row."""
        ends = np.cumsum(self.n_tokens)[:-1]
        choices = [part.tolist() for part in np.split(self.choices, ends)]
        columns = [self.loss.tolist(), self.n_tokens.tolist(), choices]
        path.parent.mkdir(parents=True, exist_ok=True)
        with kept(path) as partial:
            pq.write_table(pa.table(columns, schema=_SCHEMA), partial)


def read_losses(path: Path) -> HeldoutLosses | None:
    """Read losses that `write` kept; `None` where there are none, or they are damaged."""
    if not intact(path):
        return None
    table: Any = pq.read_table(path)
    choices = table["choices"].combine_chunks().flatten().to_numpy()
    return HeldoutLosses(table["loss"].to_numpy(), table["n_tokens"].to_numpy(), choices)


def rise(model: HeldoutLosses, reference: HeldoutLosses) -> tuple[float, float]:
    """Return how much greater a model's loss per token is than another's, and the paired error."""
    return _per_token(model.loss - reference.loss, model.n_tokens)


def agreement(model: HeldoutLosses, reference: HeldoutLosses) -> tuple[float, float]:
    """Return the share of tokens on which two models have the same first choice, and its error."""
    same = (model.choices == reference.choices).astype(np.float64)
    starts = np.concatenate([[0], np.cumsum(model.n_tokens)[:-1]])
    return _per_token(np.add.reduceat(same, starts), model.n_tokens)


def _per_token(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    per_token = rate(sums.tolist(), counts.tolist())
    return per_token.value, per_token.standard_error or 0.0


def z_score(model: HeldoutLosses, other: HeldoutLosses) -> float:
    """Return by how many paired errors a model's loss exceeds another's; 0 for equal losses."""
    value, error = rise(model, other)
    return value / error if error else 0.0


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of several draws and their standard deviation (n - 1)."""
    numbers = np.array(values)
    return float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
