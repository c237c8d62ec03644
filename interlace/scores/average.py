"""Average measurements into one table of scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interlace.errors import ContractError
from interlace.scores.sinks import UNIT as SINK_UNIT
from interlace.scores.sinks import sink_values
from interlace.scores.table import (
    ANGULAR,
    CKA,
    NATIVE,
    POOLED,
    SCHEMA,
    UNIT,
    Row,
    check_score_columns,
    measurement_batches,
    measurement_files,
    read_parquet,
)
from interlace.system import rounding


class Means:
    """Means and standard errors of values, by key.

    Values are rounded to multiples of 1 / `unit` and added as integers: sums are exact, so they do
    not depend on the order, and no value is stored. By default values lie in about [-1, 1], and
    multiples of 2^-31 are finer than a float32 cosine is exact.
    """

    def __init__(self, unit: int = UNIT) -> None:
        self._unit = unit
        self._sums: dict[tuple[str, int, int], tuple[int, int, int]] = {}  # n, sum, sum of squares

    def add(self, criterion: str, first: Any, span: Any, values: Any) -> None:
        """Add values [N] of spans, given by first layer and length [N]; at most 2^20 at once."""
        keys, index = np.unique(np.stack([first, span]), axis=1, return_inverse=True)
        index = index.reshape(-1)  # [N]
        exact = np.rint(values.astype(np.float64) * self._unit).astype(np.int64)
        high, low = np.divmod(exact * exact, self._unit)
        counts = np.bincount(index)
        sums = [np.bincount(index, weights=terms) for terms in (exact, high, low)]  # below 2^53
        for number, (key, n) in enumerate(zip(keys.T.tolist(), counts.tolist(), strict=True)):
            total, highs, lows = (int(column[number]) for column in sums)
            previous = self._sums.get((criterion, *key), (0, 0, 0))
            terms = n, total, highs * self._unit + lows
            self._sums[(criterion, *key)] = tuple(map(sum, zip(previous, terms, strict=True)))  # type: ignore[assignment]

    def rows(self) -> Iterator[Row]:
        """Yield one row of the table for each key."""
        for (criterion, first, span), (n, total, squares) in self._sums.items():
            error = None
            if n > 1:
                variance = (n * squares - total * total) / (n * (n - 1))  # an exact numerator
                error = math.sqrt(variance / n) / self._unit
            yield _row(criterion, first, span, total / n / self._unit, error, n)


def _row(criterion: str, first: int, span: int, value: float, error: float | None, n: int) -> Row:
    return dict(zip(SCHEMA.names, (criterion, first, span, value, error, n), strict=True))


def score(
    similarity: Path,
    pooled: Path | None = None,
    sensitivity: Path | None = None,
    sinks: Path | None = None,
) -> pa.Table:
    """Average the measurements of `collect`.

    Args:
        similarity: folder of Parquet files, one row per (sample, first, span).
        pooled: folder of Parquet files, one row per (sample, layer); those of probes are read.
        sensitivity: a Parquet file of `SCHEMA`, whose rows are added as they are.
        sinks: folder of Parquet files, one row per (sample, layer).

    Returns:
        A table of `SCHEMA`; `standard_error` is the standard deviation over samples (n - 1) over
        the root of n, and missing for n = 1. Its metadata is that of the files.

    Raises:
        InputError: there are no measurements, or files of another kind.
        ContractError: a measurement is not finite.
    """
    files = measurement_files(similarity)
    means = Means()
    for path in files:
        _add_similarity(path, means)
    rows = [*means.rows(), *(_pooled_rows(pooled) if pooled else ())]
    rows += _sink_rows(sinks) if sinks else ()
    rows.sort(key=lambda row: (row["criterion"], row["span"], row["first"]))
    metadata = pq.read_schema(files[0]).metadata
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(metadata))
    if sensitivity is None:
        return table
    losses = read_parquet(sensitivity)
    check_score_columns(losses, str(sensitivity), SCHEMA.names)
    losses = losses.select(SCHEMA.names).cast(SCHEMA).replace_schema_metadata(metadata)
    return pa.concat_tables([table, losses])


def _add_similarity(path: Path, means: Means) -> None:
    columns = ["domain", "first", "span", "cosine", "cosine_last"]
    for batch in measurement_batches(path, columns, rows=2**16):
        domains = batch["domain"].to_numpy(zero_copy_only=False)
        first, span, cosine, last = (
            batch[name].to_numpy(zero_copy_only=False) for name in columns[1:]
        )
        for values in (cosine, last):
            if not np.isfinite(values).all():
                raise ContractError(f"{path}: a cosine is not finite; measure again")
        for domain in sorted(set(domains)):
            selected = domains == domain
            criterion = NATIVE if domain == "native" else f"{NATIVE}/{domain}"
            means.add(criterion, first[selected], span[selected], cosine[selected])
            if domain == "native":
                angles = np.arccos(np.clip(last[selected].astype(np.float64), -1, 1)) / np.pi
                means.add(ANGULAR, first[selected], span[selected], angles)


def _sink_rows(sinks: Path) -> Iterator[Row]:
    """Yield the criteria of `SINKS` of all layers."""
    means = Means(SINK_UNIT)
    for path in measurement_files(sinks):
        for layers, values_by_criterion in sink_values(path):
            for criterion, values in values_by_criterion.items():
                means.add(criterion, layers, np.ones_like(layers), values)
    return means.rows()


def _pooled_rows(pooled: Path) -> Iterator[Row]:
    """Yield `pooled` and `cka` of all layers, from the probes' mean-pooled states."""
    layers, states, n = task_means(pooled)
    if not n:
        return
    x, y = states[:, :, 0], states[:, :, 1]  # [T, L, d] each
    cosines = (x * y).sum(-1) / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1))  # [T, L]
    for index, layer in enumerate(layers):
        yield _row(POOLED, layer, 1, float(cosines[:, index].mean()), None, n)
        if index and len(states) > 1:  # a single task is zero after centring
            yield _row(CKA, layer, 1, linear_cka(y[:, index - 1], y[:, index]), None, n)


def task_means(pooled: Path) -> tuple[list[int], Any, int]:
    """Average the probes' mean-pooled states over each task's passes.

    Args:
        pooled: folder of Parquet files, one row per (sample, layer); read in small batches.

    Returns:
        The layers, their inputs and outputs [T, L, 2, d] float64 of T tasks, and the number of
        passes; rows of the calibration set do not count.
    """
    sums: dict[tuple[str, str, int], Any] = {}  # [2, d] each
    passes: Counter[tuple[str, str, int]] = Counter()
    columns = ["domain", "task", "layer", "input", "output"]
    for path in sorted(pooled.glob("*.parquet")):
        for batch in measurement_batches(path, columns, rows=512):
            sides = [batch[side].flatten().to_numpy() for side in columns[3:]]
            states = np.stack([side.reshape(batch.num_rows, -1) for side in sides], 1)  # [N, 2, d]
            keys = zip(*(batch[name].to_pylist() for name in columns[:3]), strict=True)
            for key, state in zip(keys, states, strict=True):
                if key[0] != "native":
                    sums[key] = sums.get(key, 0.0) + state.astype(np.float64)
                    passes[key] += 1
    tasks, layers = sorted({key[:2] for key in sums}), sorted({key[2] for key in sums})
    means = [[sums[*task, i] / passes[*task, i] for i in layers] for task in tasks]
    return layers, np.array(means), sum(passes[*task, layers[0]] for task in tasks)


def linear_cka(x: Any, y: Any) -> float:
    """Return linear CKA of two sets of T vectors.

    It is `||X'Y||^2 / (||X'X|| ||Y'Y||)` with centred columns, computed from the Gram matrices
    `XX'` and `YY'`, [T, T], which give the same norms.

    Args:
        x: [T, d].
        y: [T, d].
    """
    a, b = (side @ side.T for side in (x - x.mean(0), y - y.mean(0)))  # [T, T]
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def profile(table: pa.Table) -> pa.Table:
    """Put `S_1`, `S_2` and `S_3`, rounded, side by side: a row per first layer, empty for none."""
    rows: dict[int, dict[str, Any]] = {}
    for row in table.to_pylist():
        if row["criterion"] == NATIVE and row["span"] <= 3:
            rows.setdefault(row["first"], {})[f"S_{row['span']}"] = rounding.cosine(row["value"])
    schema = pa.schema([("first", pa.int32()), *((f"S_{p}", pa.float64()) for p in (1, 2, 3))])
    return pa.Table.from_pylist([{"first": i} | rows[i] for i in sorted(rows)], schema=schema)
