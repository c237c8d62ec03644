"""Per-sample measurements -> one table of scores, one row per (criterion, first, span).

`cosine` is `S_p(i)`: the mean over calibration samples of the cosine between the input of layer i
and the output of layer i+p-1. High means that the span changes its input little: redundant.
No torch here: choosing layers is arithmetic on this table.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from interlace.errors import ContractError, InputError

Row = dict[str, Any]

SCHEMA = pa.schema(
    [
        ("criterion", pa.string()),
        ("first", pa.int32()),
        ("span", pa.int32()),
        ("value", pa.float64()),
        ("standard_error", pa.float64()),
        ("n", pa.int64()),
    ]
)
_INTEGERS, _STRINGS = (types.is_integer,), (types.is_string, types.is_large_string)
_NUMBERS = (types.is_floating, types.is_integer)
_TYPES = {
    "criterion": ("text", _STRINGS),
    "first": ("whole numbers", _INTEGERS),
    "span": ("whole numbers", _INTEGERS),
    "value": ("numbers", _NUMBERS),
    "standard_error": ("numbers", (*_NUMBERS, types.is_null)),
    "n": ("whole numbers", (*_INTEGERS, types.is_null)),
}
_UNIT = 2**31  # of the integers that values are added as
# Criteria: what a row's value is. All but the last two are measured by `collect`.
NATIVE = "cosine"  # mean cosine of a span's input and output, calibration rows (S_p)
MATH, NONMATH = "cosine/math", "cosine/nonmath"  # the same on the probes of one domain
ANGULAR = "angular"  # mean angle of the last token between a span's input and output, over pi
POOLED = "pooled"  # mean over probe tasks of the cosine of a layer's mean-pooled input and output
CKA = "cka"  # linear CKA over probe tasks of a layer's output and that of the layer before
SLEB = "sleb"  # when the layer was removed, counted from 0
TAYLOR = "taylor"  # importance of the layer's weights
_PROBES = "set probes.per_task, probes.math_sources and probes.nonmath_sources"
WAYS = {
    NATIVE: "`collect` measures it: see collect.max_span",
    MATH: f"`collect` measures it on the probes: {_PROBES}",
    NONMATH: f"`collect` measures it on the probes: {_PROBES}",
    ANGULAR: "`collect` measures it: leave collect.max_span empty, or raise it",
    POOLED: f"`collect` measures it on the probes: {_PROBES}, and collect.pooled to probes",
    CKA: f"`collect` measures it on the probes: {_PROBES}, and collect.pooled to probes",
    SLEB: "the stage `sensitivity` measures it: set method to sleb and run dvc repro",
    TAYLOR: "the stage `sensitivity` measures it: set method to taylor and run dvc repro",
}


@dataclass(frozen=True)
class Scores:
    """A table of scores, indexed.

    Attributes:
        n_layers: L, the decoder's layers.
        deepstack_layers: leading layers that visual features are added after, by position.
        values: (criterion, first, span) -> score.
        provenance: what the table says about where it comes from.
        kept: where the measured model's layers stand in the dense decoder; empty: it is dense.
    """

    n_layers: int
    deepstack_layers: int
    values: Mapping[tuple[str, int, int], float]
    provenance: Mapping[str, str]
    kept: tuple[int, ...] = ()

    @property
    def criteria(self) -> frozenset[str]:
        """What was measured."""
        return frozenset(criterion for criterion, _, _ in self.values)

    def of_span(self, span: int, criterion: str = NATIVE) -> dict[int, float]:
        """Scores of every span of this many layers, by first layer.

        Raises:
            InputError: none were measured.
        """
        found = {f: v for (c, f, s), v in self.values.items() if c == criterion and s == span}
        if not found:
            raise InputError(
                f"scores hold no {criterion!r} of {span} layer(s);"
                f" {WAYS.get(criterion, 'run `collect` and `score` again')}"
            )
        return dict(sorted(found.items()))


class Means:
    """Means and standard errors of values in about [-1, 1], by key.

    Values are rounded to multiples of 2^-31, finer than a float32 cosine is exact, and added as
    integers: sums are exact, so they do not depend on the order, and no value needs to be kept.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, int, int], tuple[int, int, int]] = {}  # n, sum, sum of squares

    def add(self, criterion: str, first: Any, span: Any, values: Any) -> None:
        """Add arrays [N] of values, of the spans they belong to; at most 2^20 at once."""
        keys, place = np.unique(np.stack([first, span]), axis=1, return_inverse=True)
        place = place.reshape(-1)  # [N]
        exact = np.rint(values.astype(np.float64) * _UNIT).astype(np.int64)
        high, low = np.divmod(exact * exact, _UNIT)
        counts = np.bincount(place)
        parts = [np.bincount(place, weights=part) for part in (exact, high, low)]  # below 2^53
        for number, (key, n) in enumerate(zip(keys.T.tolist(), counts.tolist(), strict=True)):
            total, highs, lows = (int(part[number]) for part in parts)
            known = self._sums.get((criterion, *key), (0, 0, 0))
            added = n, total, highs * _UNIT + lows
            self._sums[(criterion, *key)] = tuple(map(sum, zip(known, added, strict=True)))  # type: ignore[assignment]

    def rows(self) -> Iterator[Row]:
        """One row of the table for every key."""
        for (criterion, first, span), (n, total, squares) in self._sums.items():
            error = None
            if n > 1:
                variance = (n * squares - total * total) / (n * (n - 1))  # an exact numerator
                error = math.sqrt(variance / n) / _UNIT
            yield _row(criterion, first, span, total / n / _UNIT, error, n)


def _row(criterion: str, first: int, span: int, value: float, error: float | None, n: int) -> Row:
    return dict(zip(SCHEMA.names, (criterion, first, span, value, error, n), strict=True))


def score(
    similarity: Path, pooled: Path | None = None, sensitivity: Path | None = None
) -> pa.Table:
    """Average the measurements of `hidden_states.collect`.

    Args:
        similarity: folder of Parquet files, one row per (sample, first, span).
        pooled: folder of Parquet files, one row per (sample, layer); those of probes are read.
        sensitivity: a Parquet file of `SCHEMA`, whose rows are taken over as they are.

    Returns:
        A table of `SCHEMA`; `standard_error` is the standard deviation over samples (n - 1) over
        the root of n, and missing for n = 1. Its metadata carries on what the files say.

    Raises:
        InputError: there are no measurements, or files that hold something else.
        ContractError: a measurement is not finite.
    """
    files = sorted(similarity.glob("*.parquet"))
    if not files:
        raise InputError(f"{similarity}: no measurements; run `dvc repro collect`")
    means = Means()
    for path in files:
        _add_similarity(path, means)
    rows = [*means.rows(), *(_pooled_rows(pooled) if pooled else ())]
    rows.sort(key=lambda row: (row["criterion"], row["span"], row["first"]))
    about = pq.read_schema(files[0]).metadata
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(about))
    if sensitivity is None:
        return table
    more = _read(sensitivity, "sensitivity")
    _check_columns(more, str(sensitivity), SCHEMA.names)
    more = more.select(SCHEMA.names).cast(SCHEMA).replace_schema_metadata(about)
    return pa.concat_tables([table, more])


def _add_similarity(path: Path, means: Means) -> None:
    needed = ["domain", "first", "span", "cosine", "cosine_last"]
    for batch in _batches(path, needed, rows=2**16):
        domains = batch["domain"].to_numpy(zero_copy_only=False)
        first, span, cosine, last = (
            batch[name].to_numpy(zero_copy_only=False) for name in needed[1:]
        )
        for values in (cosine, last):
            if not np.isfinite(values).all():
                raise ContractError(f"{path}: a cosine is not finite; run `dvc repro -f collect`")
        for domain in sorted(set(domains)):
            chosen = domains == domain
            criterion = NATIVE if domain == "native" else f"{NATIVE}/{domain}"
            means.add(criterion, first[chosen], span[chosen], cosine[chosen])
            if domain == "native":
                angles = np.arccos(np.clip(last[chosen].astype(np.float64), -1, 1)) / np.pi
                means.add(ANGULAR, first[chosen], span[chosen], angles)


def _batches(path: Path, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    file = pq.ParquetFile(path)
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing; run `dvc repro -f collect`")
    return file.iter_batches(batch_size=rows, columns=columns)  # type: ignore[no-any-return]


def _pooled_rows(pooled: Path) -> Iterator[Row]:
    """`pooled` and `cka` of every layer, from the probes' mean-pooled states."""
    layers, states, n = task_means(pooled)
    if not n:
        return
    x, y = states[:, :, 0], states[:, :, 1]  # [T, L, d] each
    cosines = (x * y).sum(-1) / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1))  # [T, L]
    for place, layer in enumerate(layers):
        yield _row(POOLED, layer, 1, float(cosines[:, place].mean()), None, n)
        if place and len(states) > 1:  # of a single task, nothing is left after centring
            yield _row(CKA, layer, 1, linear_cka(y[:, place - 1], y[:, place]), None, n)


def task_means(pooled: Path) -> tuple[list[int], Any, int]:
    """Mean-pooled states of the probes, averaged over each task's passes.

    Args:
        pooled: folder of Parquet files, one row per (sample, layer); read a little at a time.

    Returns:
        The layers, their inputs and outputs [T, L, 2, d] float64 of T tasks, and the number of
        passes; rows of the calibration set do not count.
    """
    sums: dict[tuple[str, str, int], Any] = {}  # [2, d] each
    passes: Counter[tuple[str, str, int]] = Counter()
    columns = ["domain", "task", "layer", "input", "output"]
    for path in sorted(pooled.glob("*.parquet")):
        for batch in _batches(path, columns, rows=512):
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
    """Linear CKA of two sets of T vectors, `||X'Y||^2 / (||X'X|| ||Y'Y||)` with centred columns.

    Worked out from the Gram matrices `XX'` and `YY'`, [T, T], which give the same norms.

    Args:
        x: [T, d].
        y: [T, d].
    """
    a, b = (side @ side.T for side in (x - x.mean(0), y - y.mean(0)))  # [T, T]
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def profile(table: pa.Table) -> pa.Table:
    """`S_1`, `S_2` and `S_3` side by side: one row per first layer, empty where none begins."""
    rows: dict[int, dict[str, Any]] = {}
    for row in table.to_pylist():
        if row["criterion"] == NATIVE and row["span"] <= 3:
            rows.setdefault(row["first"], {})[f"S_{row['span']}"] = row["value"]
    schema = pa.schema([("first", pa.int32()), *((f"S_{p}", pa.float64()) for p in (1, 2, 3))])
    return pa.Table.from_pylist([{"first": i} | rows[i] for i in sorted(rows)], schema=schema)


def read_scores(source: Path | str | pa.Table) -> Scores:
    """Read and check a table of scores.

    Args:
        source: a Parquet file or an Arrow table. Without `n_layers` in its metadata, the decoder is
            taken to end where the last measured span ends.

    Raises:
        InputError: no such file, a column is missing or of another type, a value is not finite or
            appears twice, or the metadata does not fit.
    """
    name = "scores" if isinstance(source, pa.Table) else str(source)
    table = source if isinstance(source, pa.Table) else _read(Path(source))
    needed = ["criterion", "first", "span", "value"]
    _check_columns(table, name, needed)
    values: dict[tuple[str, int, int], float] = {}
    for number, row in enumerate(table.select(needed).to_pylist()):
        key = (row["criterion"], row["first"], row["span"])
        if None in key or row["first"] < 0 or row["span"] < 1:
            raise InputError(f"{name}: row {number}: {key} is no criterion, first layer and span")
        if row["value"] is None or not np.isfinite(row["value"]):
            raise InputError(f"{name}: row {number}: value {row['value']} of {key} is not a number")
        if key in values:
            raise InputError(f"{name}: row {number}: {key} appears twice")
        values[key] = row["value"]
    if not values:
        raise InputError(f"{name}: holds no scores; run `collect` and `score` again")
    about = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    end = max(first + span for _, first, span in values)
    n_layers = _count(about, "n_layers", end, name)
    if n_layers < end:
        raise InputError(
            f"{name}: metadata n_layers = {n_layers}, but scores reach layer {end - 1}"
        )
    return Scores(
        n_layers=n_layers,
        deepstack_layers=_count(about, "deepstack_layers", 0, name),
        values=values,
        provenance={k: v for k, v in about.items() if k in ("model", "revision", "mode", "dtype")},
        kept=tuple(int(layer) for layer in about.get("kept", "").split()),
    )


def _check_columns(table: pa.Table, where: str, needed: Sequence[str]) -> None:
    for column in needed:
        if column not in table.column_names:
            raise InputError(f"{where}: column {column!r} is missing; `score` writes this table")
        found, (kind, fits) = table.schema.field(column).type, _TYPES[column]
        if not any(fit(found) for fit in fits):
            raise InputError(f"{where}: column {column!r} holds {found}, not {kind}")


def _count(about: Mapping[str, str], field: str, default: int, where: str) -> int:
    said = about.get(field, str(default))
    if not said.isdecimal():
        raise InputError(f"{where}: metadata {field} = {said!r} is not a number of layers")
    return int(said)


def _read(path: Path, stage: str = "score") -> pa.Table:
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run `dvc repro {stage}`") from None
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not a Parquet file: {error}") from None
