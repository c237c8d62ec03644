"""Similarity of each layer on each probe task: the table `metrics/probes.csv`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from interlace.scores.table import measurement_files, read_csv
from interlace.system import rounding

PROBE_DOMAINS = ("math", "nonmath")  # in the order of the rows
PROBE_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("domain", pa.string()),
        ("layer", pa.int32()),
        ("similarity", pa.float64()),
    ]
)


def probe_table(similarity_folder: Path) -> pa.Table:
    """Average the cosine of each layer's input and output over each task's probes (`S_1` per task).

    Args:
        similarity_folder: Parquet files, one row per (sample, first, span).

    Returns:
        Columns task, domain, layer, similarity, rounded, for a plot: math tasks first, each
        domain's by name, each task's by layer. No rows where there are no probes.

    Raises:
        InputError: the folder holds no measurements.
    """
    measurement_files(similarity_folder)  # refuse a folder without any
    probes = (pc.field("span") == 1) & pc.field("domain").isin(list(PROBE_DOMAINS))
    columns = {name: pc.field(name) for name in ("task", "domain", "first")}
    columns["cosine"] = pc.field("cosine").cast(pa.float64())
    rows = (
        ds.dataset(similarity_folder, format="parquet")
        .to_table(columns=columns, filter=probes)
        .group_by(["task", "domain", "first"], use_threads=False)
        .aggregate([("cosine", "mean")])
        .rename_columns(["task", "domain", "layer", "similarity"])
        .to_pylist()
    )
    rows = [row | {"similarity": rounding.cosine(row["similarity"])} for row in rows]
    rows.sort(key=lambda row: (PROBE_DOMAINS.index(row["domain"]), row["task"], row["layer"]))
    return pa.Table.from_pylist(rows, schema=PROBE_SCHEMA)


def read_probe_table(path: Path) -> pa.Table:
    """Read the table that `score` wrote.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    return read_csv(path, PROBE_SCHEMA)
