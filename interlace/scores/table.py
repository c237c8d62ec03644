"""The table of scores: one row per (criterion, first, span).

`cosine` is `S_p(i)`: the mean over calibration samples of the cosine between the input of layer i
and the output of layer i+p-1. High means that the span changes its input little: redundant.
Choosing layers is arithmetic on this table, without torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv, types
from pydantic import ValidationError

from interlace.errors import InputError, MissingInputError
from interlace.model.kinds import LayerKinds

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
MOST_LAYERS = 10_000
UNIT = 2**31  # cosines are rounded to multiples of its inverse, so that their sums are exact
# Criteria: the meaning of a row's value. All but the last three are measured by `collect`.
NATIVE = "cosine"  # mean cosine of a span's input and output, calibration rows (S_p)
MATH, NONMATH = "cosine/math", "cosine/nonmath"  # the same on the probes of one domain
ANGULAR = "angular"  # mean angle of the last token between a span's input and output, over pi
POOLED = "pooled"  # mean over probe tasks of the cosine of a layer's mean-pooled input and output
CKA = "cka"  # linear CKA over probe tasks of a layer's output and that of the layer before
# Of layers, over calibration rows; growth and norm are decimal logarithms of ratios:
FIRST_COSINE = "first/cosine"  # mean cosine of the first token's input and output
FIRST_GROWTH = "first/growth"  # mean log10 of its norm after the layer over that before
LARGEST_COSINE = "largest/cosine"  # the same of the token of greatest norm at this layer
LARGEST_GROWTH = "largest/growth"
LARGEST_NORM = "largest/norm"  # mean log10 of its norm after the layer over the sample's median
SINK_START = "sink/start"  # share of samples in which the layer makes a massive activation
SINK_END = "sink/end"  # share of samples in which it brings one down
SINKS = (
    *(FIRST_COSINE, FIRST_GROWTH, LARGEST_COSINE, LARGEST_GROWTH, LARGEST_NORM),
    *(SINK_START, SINK_END),
)
SLEB = "sleb"  # when the layer was removed, counted from 0
SEARCH = "search"  # size of the smallest best set with the layer; `search/K`: loss of that of K
TAYLOR = "taylor"  # importance of the layer's weights
_PROBES = "set probes.per_task, probes.math_sources and probes.nonmath_sources"
HOW_TO_MEASURE = {
    NATIVE: "`collect` measures it: see collect.max_span",
    MATH: f"`collect` measures it on the probes: {_PROBES}",
    NONMATH: f"`collect` measures it on the probes: {_PROBES}",
    ANGULAR: "`collect` measures it: leave collect.max_span empty, or raise it",
    POOLED: f"`collect` measures it on the probes: {_PROBES}, and collect.pooled to probes",
    CKA: f"`collect` measures it on the probes: {_PROBES}, and collect.pooled to probes",
    SLEB: "the stage `sensitivity` measures it, with method: sleb",
    SEARCH: "the stage `sensitivity` measures it, with method: search",
    TAYLOR: "the stage `sensitivity` measures it, with method: taylor",
}


@dataclass(frozen=True)
class Scores:
    """A table of scores, indexed.

    Attributes:
        n_layers: L, the decoder's layers.
        deepstack_layers: leading layers that visual features are added after, by position.
        values: (criterion, first, span) -> score.
        provenance: the source of the measurements, from the table's metadata.
        kept_layers: the measured model's layers, by position in the dense decoder; empty: it is
            dense.
        layer_kinds: the kinds of a dense decoder's layers, where they differ.
    """

    n_layers: int
    deepstack_layers: int
    values: Mapping[tuple[str, int, int], float]
    provenance: Mapping[str, str]
    kept_layers: tuple[int, ...] = ()
    layer_kinds: LayerKinds | None = None

    @property
    def criteria(self) -> frozenset[str]:
        """The measured criteria."""
        return frozenset(criterion for criterion, _, _ in self.values)

    def of_span(self, span: int, criterion: str = NATIVE) -> dict[int, float]:
        """Return the scores of all spans of this many layers, by first layer.

        Raises:
            InputError: none were measured, or some are missing.
        """
        scores = {f: v for (c, f, s), v in self.values.items() if c == criterion and s == span}
        first = 1 if criterion == CKA else 0
        last = self.n_layers - span - (self.provenance.get("mode") != "residual")
        missing = sorted(set(range(first, last + 1)) - set(scores))
        if scores and missing and criterion not in (SLEB, SEARCH):  # these measure some layers
            raise InputError(
                f"scores hold no {criterion!r} of {span} layer(s) from layer {missing[0]} on, but"
                f" from layer {min(scores)}: rows are missing; run `score` again"
            )
        if not scores:
            raise InputError(
                f"scores hold no {criterion!r} of {span} layer(s);"
                f" {HOW_TO_MEASURE.get(criterion, 'run `collect` and `score` again')}"
            )
        return dict(sorted(scores.items()))


ScoreTable: TypeAlias = Path | str | pa.Table | Scores


def read_scores(source: ScoreTable, *, by_score: bool = False) -> Scores:
    """Read and check a table of scores.

    Args:
        source: a Parquet file or an Arrow table; scores are returned as they are. Without
            `n_layers` in its metadata, the decoder ends where the last measured span ends.
        by_score: the stage `score` wrote it, so its metadata must be there.

    Raises:
        InputError: no such file, a column is missing or of another type, a value is not finite or
            appears twice, or the metadata does not fit.
    """
    if isinstance(source, Scores):
        return source
    path = Path("scores" if isinstance(source, pa.Table) else source)
    table = source if isinstance(source, pa.Table) else read_parquet(path)
    values = _indexed(table, path)
    end = max(first + span for _, first, span in values)
    metadata = {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in (table.schema.metadata or {}).items()
    }
    for field in ("n_layers", "deepstack_layers") if by_score else ():
        if field not in metadata:
            raise MissingInputError(path, f"metadata {field} is missing")
    n_layers = _count(metadata, "n_layers", end, path)
    if n_layers < end:
        problem = f"metadata n_layers = {n_layers}, but scores reach layer {end - 1}"
        raise MissingInputError(path, problem)
    kept_layers = tuple(
        _count({"kept": layer}, "kept", 0, path) for layer in metadata.get("kept", "").split()
    )
    return Scores(
        n_layers=n_layers,
        deepstack_layers=_count(metadata, "deepstack_layers", 0, path),
        values=values,
        provenance={
            k: v for k, v in metadata.items() if k in ("model", "revision", "mode", "dtype")
        },
        kept_layers=kept_layers,
        layer_kinds=None if kept_layers else _layer_kinds(metadata, n_layers, path),
    )


def _layer_kinds(metadata: Mapping[str, str], n_layers: int, path: Path) -> LayerKinds | None:
    if "layer_kinds" not in metadata:
        return None
    try:
        kinds = LayerKinds.model_validate_json(metadata["layer_kinds"])
    except ValidationError as error:
        raise MissingInputError.invalid(path, error) from None
    if {len(entries) for entries in kinds.fields.values()} != {n_layers}:
        raise MissingInputError(path, f"metadata layer_kinds are not those of {n_layers} layers")
    return kinds


def _indexed(table: pa.Table, path: Path) -> dict[tuple[str, int, int], float]:
    """Return the scores by criterion, first layer and span, each checked."""
    needed = ["criterion", "first", "span", "value"]
    check_score_columns(table, str(path), needed)
    values: dict[tuple[str, int, int], float] = {}
    for number, row in enumerate(table.select(needed).to_pylist()):
        key, value = (row["criterion"], row["first"], row["span"]), row["value"]
        problem = ""
        if None in key or row["first"] < 0 or row["span"] < 1:
            problem = f"{key} is not a criterion, first layer and span"
        elif row["first"] + row["span"] > MOST_LAYERS:
            problem = f"scores reach layer {row['first'] + row['span'] - 1}; no decoder has so many"
        elif value is None or not np.isfinite(value):
            problem = f"value {value} of {key} is not a number"
        elif key in values:
            problem = f"{key} appears twice"
        if problem:
            raise MissingInputError(path, f"row {number}: {problem}")
        values[key] = value
    if not values:
        raise MissingInputError(path, "holds no scores")
    return values


def check_score_columns(table: pa.Table, name: str, columns: Sequence[str]) -> None:
    """Check that a table has these columns of `SCHEMA`.

    Raises:
        InputError: a column is missing or of another type; names the table, e.g. its file.
    """
    for column in columns:
        if column not in table.column_names:
            problem = f"column {column!r} is missing; `score` writes this table"
            raise MissingInputError(Path(name), problem)
        dtype, (kind, checks) = table.schema.field(column).type, _TYPES[column]
        if not any(is_of_type(dtype) for is_of_type in checks):
            raise MissingInputError(Path(name), f"column {column!r} holds {dtype}, not {kind}")


def _count(metadata: Mapping[str, str], field: str, default: int, path: Path) -> int:
    value = metadata.get(field, str(default))
    is_number = value.isascii() and value.isdecimal() and len(value) < 10
    if not is_number or int(value) > MOST_LAYERS:
        raise MissingInputError(path, f"metadata {field} = {value!r} is not a number of layers")
    return int(value)


def read_parquet(path: Path) -> pa.Table:
    """Read a table that a stage writes.

    Raises:
        InputError: there is no such file, or it is not a Parquet file.
    """
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise MissingInputError(path) from None
    except (pa.ArrowException, OSError) as error:
        raise MissingInputError(path, f"not a Parquet file: {error}") from None


def read_csv(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a table in CSV that a stage writes.

    Raises:
        InputError: the file is missing, lacks a column, or a value is of another type.
    """
    if not path.is_file():
        raise MissingInputError(path)
    types_by_column = {field.name: field.type for field in schema}
    options = csv.ConvertOptions(column_types=types_by_column, include_columns=schema.names)
    try:
        return csv.read_csv(path, convert_options=options)
    except (pa.ArrowException, OSError) as error:  # a missing column is a KeyError of Arrow's
        raise MissingInputError(path, f"not the table that was written: {error}") from None


def measurement_files(folder: Path) -> list[Path]:
    """List the Parquet files that `collect` wrote, in order.

    Raises:
        InputError: there are none.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise MissingInputError(folder, "no measurements")
    return files


def measurement_batches(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Read columns of measurements, at most `rows` rows at once.

    Raises:
        InputError: a column or a value is missing, or the file is damaged.
    """
    try:
        file = pq.ParquetFile(path)
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise MissingInputError(path, f"column {missing[0]!r} is missing")
        for batch in file.iter_batches(batch_size=rows, columns=list(columns)):
            for name in columns:
                if batch[name].null_count:
                    raise MissingInputError(path, f"column {name!r} has rows without a value")
            yield batch
    except (pa.ArrowException, OSError) as error:
        raise MissingInputError(path, f"not a Parquet file: {error}") from None
