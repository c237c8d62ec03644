"""Resample the calibration set: tables of scores by bootstrap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from interlace.errors import InputError
from interlace.scores.per_sample import Measured
from interlace.scores.table import Scores

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


_BLOCK = 25  # resamples worked out at once


def resampled(found: Mapping[str, Measured], seed: int = 0) -> pa.Table:
    """Means over as many samples, drawn with replacement: the tables of the bootstrap.

    Samples are drawn within their task, each task keeping its number.

    Args:
        found: measurements by criterion; the draws of one do not depend on the others.
        seed: of the draws.

    Returns:
        A table of `REPLICATES`, `RESAMPLES` replicates of each criterion.
    """
    parts = []
    for criterion, one in found.items():
        rng = np.random.default_rng([seed, *criterion.encode()])
        means = np.concatenate(list(_means(one, rng)))  # [R, S]
        first, span = np.array(one.spans).T
        columns = {
            "replicate": np.repeat(np.arange(RESAMPLES), len(first)),
            "criterion": pa.repeat(criterion, means.size),
            "first": np.tile(first, RESAMPLES),
            "span": np.tile(span, RESAMPLES),
            "value": means.ravel(),
        }
        parts.append(pa.table(columns).cast(REPLICATES))
    return pa.concat_tables([REPLICATES.empty_table(), *parts])


def _means(one: Measured, rng: np.random.Generator) -> Iterator[Array]:
    """A block of resamples after the other, [B, S]."""
    n = len(one.cosines)
    starts = np.cumsum((0, *one.tasks))
    for _ in range(0, RESAMPLES, _BLOCK):
        counts = np.zeros((_BLOCK, n))  # how often each sample was drawn
        for row in counts:
            for begin, end in pairwise(starts):
                drawn = rng.integers(begin, end, end - begin)
                row[begin:end] = np.bincount(drawn - begin, minlength=end - begin)
        yield counts @ one.cosines / n


def read_replicates(path: Path) -> pa.Table:
    """Read what `score` resampled.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run `dvc repro score`") from None
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not a Parquet file: {error}") from None
    if not table.schema.equals(REPLICATES):
        raise InputError(f"{path}: not the tables that `score` resamples; run `dvc repro score`")
    return table


def tables(replicates: pa.Table, scores: Scores, criteria: Iterable[str]) -> Iterator[Scores]:
    """One table of scores per replicate.

    Args:
        replicates: of `REPLICATES`.
        scores: the real table; what was not resampled is as it says.
        criteria: those to keep.
    """
    wanted = set(criteria)
    kept = {key: value for key, value in scores.values.items() if key[0] in wanted}
    chosen = replicates.filter(pc.field("criterion").isin(sorted(wanted)))
    chosen = chosen.sort_by([(name, "ascending") for name in REPLICATES.names[:-1]])
    draws = len(pc.unique(chosen["replicate"]))
    names = (chosen[name][: len(chosen) // max(draws, 1)].to_pylist() for name in REPLICATES.names)
    _, *key_parts, _ = names
    keys = list(zip(*key_parts, strict=True))
    for row in chosen["value"].to_numpy().reshape(draws, -1).tolist():
        yield replace(scores, values={**kept, **dict(zip(keys, row, strict=True))})


def kendall_tau(left: Array, right: Array) -> Array:
    """Kendall's tau-b of rankings of the same items: 1 the same order, -1 the reverse.

    Args:
        left: [D, S], values of S items in each of D rankings.
        right: [S], other values of the same items.

    Returns:
        [D]; NaN where one side is constant.
    """
    above = np.triu_indices(len(right), k=1)
    a = np.sign(left[:, above[0]] - left[:, above[1]])  # [D, pairs]
    b = np.sign(right[above[0]] - right[above[1]])  # [pairs]
    untied = np.count_nonzero(a, axis=1) * np.count_nonzero(b)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(a @ b / np.sqrt(untied))
