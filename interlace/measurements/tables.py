"""The tables that `collect` writes, in Parquet files of bounded size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Row = Mapping[str, Any]

_SAMPLE = [("sample_id", pa.string()), ("domain", pa.string()), ("task", pa.string())]
KINDS = ("cosine", "cosine_vision", "cosine_text", "cosine_last")  # which tokens count
SIMILARITY = pa.schema(
    [
        *_SAMPLE,
        ("source", pa.string()),
        ("n_tokens", pa.int32()),
        ("n_vision_tokens", pa.int32()),
        ("first", pa.int32()),
        ("span", pa.int32()),
        *((kind, pa.float32()) for kind in KINDS),
    ]
)
SINKS = pa.schema(  # norms are lengths of states; in, out: of a layer's input, output
    [
        *_SAMPLE,
        ("source", pa.string()),
        ("layer", pa.int32()),
        ("median_in", pa.float32()),  # over the sample's tokens
        ("median_out", pa.float32()),
        ("first_cosine", pa.float32()),  # of the first token's input and output
        ("first_in", pa.float32()),
        ("first_out", pa.float32()),
        ("largest_cosine", pa.float32()),  # of the token of greatest norm at this layer
        ("largest_in", pa.float32()),
        ("largest_out", pa.float32()),
        ("largest_position", pa.int32()),  # of that token among the sample's
    ]
)
LEFT_OUT = pa.schema([("sample_id", pa.string()), ("source", pa.string()), ("reason", pa.string())])
PART_BYTES = 2**28  # in memory, after which another file begins


def similarity_table(
    rows: Sequence[Row], counts: NDArray[Any], spans: NDArray[Any], cosines: NDArray[Any]
) -> pa.Table:
    """Build a table with one row per (sample, span).

    Args:
        rows: N samples: their id, domain, task and source.
        counts: [N, 2] tokens, and those of images.
        spans: [S, 2] (first, span).
        cosines: [N, S, 4] of all, vision and text tokens and the last token; NaN: no such token.
    """
    n, s = len(rows), len(spans)
    repeated = pa.array(np.repeat(np.arange(n), s))
    columns = [
        pa.array([row[name] for row in rows], pa.string()).take(repeated)
        for name in SIMILARITY.names[:4]
    ]
    columns += [pa.array(np.repeat(column, s), pa.int32()) for column in counts.T]
    columns += [pa.array(np.tile(column, n), pa.int32()) for column in spans.T]
    flat = cosines.reshape(n * s, len(KINDS))  # [N, S, 4] -> [N*S, 4]
    columns += [pa.array(column, pa.float32(), from_pandas=True) for column in flat.T]
    return pa.table(columns, schema=SIMILARITY)


def sinks_table(rows: Sequence[Row], statistics: NDArray[Any], positions: NDArray[Any]) -> pa.Table:
    """Build a table with one row per (sample, layer).

    Args:
        rows: N samples: their id, domain, task and source.
        statistics: [N, L, 8], as `sink_statistics` returns them.
        positions: [N, L] of the tokens of greatest norm.
    """
    n, layers, _ = statistics.shape
    repeated = pa.array(np.repeat(np.arange(n), layers))
    columns = [
        pa.array([row[name] for row in rows], pa.string()).take(repeated)
        for name in SINKS.names[:4]
    ]
    columns.append(pa.array(np.tile(np.arange(layers), n), pa.int32()))
    columns += [pa.array(column, pa.float32()) for column in statistics.reshape(n * layers, -1).T]
    columns.append(pa.array(positions.reshape(-1), pa.int32()))
    return pa.table(columns, schema=SINKS)


def pooled_table(rows: Sequence[Row], states: NDArray[Any]) -> pa.Table:
    """Build a table with one row per (sample, layer).

    Args:
        rows: N samples: their id, domain and task.
        states: [N, 2, L, d] float16, mean-pooled inputs and outputs.
    """
    n, _, layers, width = states.shape
    repeated = pa.array(np.repeat(np.arange(n), layers))
    columns: dict[str, Any] = {
        name: pa.array([row[name] for row in rows], kind).take(repeated) for name, kind in _SAMPLE
    }
    columns["layer"] = pa.array(np.tile(np.arange(layers), n), pa.int32())
    for side, name in enumerate(("input", "output")):
        flat = pa.array(states[:, side].reshape(-1), pa.float16())  # [N * L * d]
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, width)
    return pa.table(columns)


def _is_measured(kind: pa.DataType) -> bool:
    """Return True for a column of measurements, which hardly repeat."""
    return bool(pa.types.is_floating(kind) or pa.types.is_fixed_size_list(kind))


class Parts:
    """A writer of tables into few files of bounded size, `part-00000.parquet` and so on.

    The folder is created with the first table.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, str]) -> None:
        self._folder, self._metadata = folder, dict(metadata)
        self._writer: pq.ParquetWriter | None = None
        self._count = self._bytes = 0

    def write(self, table: pa.Table) -> None:
        """Append a table as a row group."""
        table = table.replace_schema_metadata(self._metadata)
        if self._writer is None:
            self._folder.mkdir(exist_ok=True)
            path = self._folder / f"part-{self._count:05d}.parquet"
            repeating = [field.name for field in table.schema if not _is_measured(field.type)]
            self._writer = pq.ParquetWriter(path, table.schema, use_dictionary=repeating)
            self._count += 1
        self._writer.write_table(table)
        self._bytes += table.nbytes
        if self._bytes >= PART_BYTES:
            self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._bytes = None, 0

    def __enter__(self) -> Parts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
