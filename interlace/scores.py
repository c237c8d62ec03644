"""Per-sample measurements -> one table of scores, one row per (criterion, first, span).

`cosine` is `S_p(i)`: the mean over calibration samples of the cosine between the input of layer i
and the output of layer i+p-1. High means that the span changes its input little: redundant.
No torch here: choosing layers is arithmetic on this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from interlace.errors import InputError

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


def score(similarity: Path) -> pa.Table:
    """Average the measurements of `hidden_states.collect`.

    Args:
        similarity: folder of Parquet files, one row per (sample, first, span).

    Returns:
        A table of `SCHEMA`; `standard_error` is the standard deviation over samples (n - 1) over
        the root of n, and missing for n = 1. Its metadata carries on what the files say.
    """
    if not any(similarity.glob("*.parquet")):
        raise InputError(f"{similarity}: no measurements; run `dvc repro collect`")
    measured = ds.dataset(similarity, format="parquet")
    table = measured.to_table(columns=["domain", "sample_id", "first", "span", "cosine"])
    rows: dict[str, list[object]] = {name: [] for name in SCHEMA.names}
    for domain in sorted(pc.unique(table["domain"]).to_pylist()):
        criterion = NATIVE if domain == "native" else f"{NATIVE}/{domain}"
        part = table.filter(pc.equal(table["domain"], domain)).sort_by(
            [("span", "ascending"), ("first", "ascending"), ("sample_id", "ascending")]
        )
        first, span = part["first"].to_numpy(), part["span"].to_numpy()
        cosine = part["cosine"].to_numpy().astype(np.float64)
        starts = np.flatnonzero(
            (np.diff(first, prepend=-1) != 0) | (np.diff(span, prepend=-1) != 0)
        )
        for begin, end in zip(starts, [*starts[1:], len(cosine)], strict=True):
            values = cosine[begin:end]  # [samples]
            n = len(values)
            rows["criterion"].append(criterion)
            rows["first"].append(int(first[begin]))
            rows["span"].append(int(span[begin]))
            rows["value"].append(float(values.mean()))
            rows["standard_error"].append(float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None)
            rows["n"].append(n)
    return pa.table(rows, schema=SCHEMA.with_metadata(measured.schema.metadata))


def read_scores(source: Path | str | pa.Table) -> Scores:
    """Read and check a table of scores.

    Args:
        source: a Parquet file or an Arrow table. Without `n_layers` in its metadata, the decoder is
            taken to end where the last measured span ends.

    Raises:
        InputError: no such file, a column is missing, or a value is not finite or appears twice.
    """
    name = "scores" if isinstance(source, pa.Table) else str(source)
    table = source if isinstance(source, pa.Table) else _read(Path(source))
    needed = ["criterion", "first", "span", "value"]
    missing = [column for column in needed if column not in table.column_names]
    if missing:
        raise InputError(f"{name}: column {missing[0]!r} is missing; `score` writes this table")
    values: dict[tuple[str, int, int], float] = {}
    for number, row in enumerate(table.select(needed).to_pylist()):
        key = (row["criterion"], row["first"], row["span"])
        if row["value"] is None or not np.isfinite(row["value"]):
            raise InputError(f"{name}: row {number}: value {row['value']} of {key} is not a number")
        if key in values:
            raise InputError(f"{name}: row {number}: {key} appears twice")
        values[key] = row["value"]
    if not values:
        raise InputError(f"{name}: holds no scores; run `collect` and `score` again")
    about = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    end = max(first + span for _, first, span in values)
    return Scores(
        n_layers=int(about.get("n_layers", end)),
        deepstack_layers=int(about.get("deepstack_layers", 0)),
        values=values,
        provenance={k: v for k, v in about.items() if k in ("model", "revision", "mode", "dtype")},
        kept=tuple(int(layer) for layer in about.get("kept", "").split()),
    )


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run `dvc repro score`") from None
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not a Parquet file: {error}") from None
