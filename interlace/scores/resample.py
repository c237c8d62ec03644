"""Bootstrap of the calibration set: tables of scores over resampled samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from interlace.errors import MissingInputError
from interlace.scores.per_sample import SampleCosines
from interlace.scores.table import Scores, read_parquet

Array = NDArray[np.float64]
REPLICATES = pa.schema(
    [
        ("replicate", pa.int32()),
        ("criterion", pa.string()),
        ("first", pa.int32()),
        ("span", pa.int32()),
        ("value", pa.float64()),
    ]
)
RESAMPLES = 200  # tables of the bootstrap
_BLOCK = 25  # resamples computed at once


def bootstrap(cosines: Mapping[str, SampleCosines], seed: int = 0) -> pa.Table:
    """Average over as many samples, drawn with replacement, again and again.

    Samples are drawn within their task, each task keeping its number.

    Args:
        cosines: by criterion; the draws of one criterion do not depend on the others.
        seed: of the draws.

    Returns:
        A table of `REPLICATES`, `RESAMPLES` replicates of each criterion.
    """
    tables = []
    for criterion, samples in cosines.items():
        rng = np.random.default_rng([seed, *criterion.encode()])
        means = np.concatenate(list(_resampled_means(samples, rng)))  # [R, S]
        first, span = np.array(samples.spans).T
        columns = {
            "replicate": np.repeat(np.arange(RESAMPLES), len(first)),
            "criterion": pa.repeat(criterion, means.size),
            "first": np.tile(first, RESAMPLES),
            "span": np.tile(span, RESAMPLES),
            "value": means.ravel(),
        }
        tables.append(pa.table(columns).cast(REPLICATES))
    return pa.concat_tables([REPLICATES.empty_table(), *tables])


def _resampled_means(samples: SampleCosines, rng: np.random.Generator) -> Iterator[Array]:
    """Yield the means of one block of resamples after another, [B, S]."""
    n = len(samples.cosines)
    starts = np.cumsum((0, *samples.tasks))
    for _ in range(0, RESAMPLES, _BLOCK):
        counts = np.zeros((_BLOCK, n))  # how often each sample was drawn
        for row in counts:
            for begin, end in pairwise(starts):
                draws = rng.integers(begin, end, end - begin)
                row[begin:end] = np.bincount(draws - begin, minlength=end - begin)
        yield counts @ samples.cosines / n


def read_replicates(path: Path, scores: Scores) -> pa.Table:
    """Read the tables that `score` resampled.

    Args:
        path: of the file.
        scores: the table that they are resamples of.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    table = read_parquet(path)
    if not table.schema.equals(REPLICATES):
        raise MissingInputError(path, "not a table of resampled scores")
    if not pc.all(pc.is_finite(table["value"]), skip_nulls=False, min_count=0).as_py():
        raise MissingInputError(path, "a value is missing or not finite")
    keys = REPLICATES.names[1:-1]
    draws = table.group_by(keys).aggregate([("replicate", "count_distinct"), ("value", "count")])
    whole_draws = {(RESAMPLES, RESAMPLES)} if len(draws) else set()
    if {*zip(*(draws[c].to_pylist() for c in draws.column_names[-2:]), strict=True)} != whole_draws:
        raise MissingInputError(path, f"a score does not have {RESAMPLES} resamples, each once")
    if {*zip(*(draws[name].to_pylist() for name in keys), strict=True)} - scores.values.keys():
        raise MissingInputError(path, "holds scores that the table of scores does not")
    return table


def replicate_tables(
    replicates: pa.Table, scores: Scores, criteria: Iterable[str]
) -> Iterator[Scores]:
    """Yield one table of scores per replicate.

    Args:
        replicates: of `REPLICATES`.
        scores: the real table; scores that were not resampled are taken from it.
        criteria: those to keep.
    """
    names = sorted(set(criteria))
    fixed = {key: value for key, value in scores.values.items() if key[0] in names}
    rows = replicates.filter(pc.field("criterion").isin(names))
    rows = rows.sort_by([(name, "ascending") for name in REPLICATES.names[:-1]])
    draws = len(pc.unique(rows["replicate"]))
    first_replicate = rows.slice(0, len(rows) // max(draws, 1))
    keys = list(
        zip(*(first_replicate[name].to_pylist() for name in REPLICATES.names[1:-1]), strict=True)
    )
    for values in rows["value"].to_numpy().reshape(draws, -1).tolist():
        yield replace(scores, values={**fixed, **dict(zip(keys, values, strict=True))})


def kendall_tau(rankings: Array, reference: Array) -> Array:
    """Return Kendall's tau-b of rankings of the same items: 1 the same order, -1 the reverse.

    Args:
        rankings: [D, S], values of S items in each of D rankings.
        reference: [S], other values of the same items.

    Returns:
        [D]; NaN where one side is constant.
    """
    upper = np.triu_indices(len(reference), k=1)
    a = np.sign(rankings[:, upper[0]] - rankings[:, upper[1]])  # [D, pairs]
    b = np.sign(reference[upper[0]] - reference[upper[1]])  # [pairs]
    untied = np.count_nonzero(a, axis=1) * np.count_nonzero(b)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(a @ b / np.sqrt(untied))
