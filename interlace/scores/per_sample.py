"""What `collect` measured, by sample: the cosines of short spans as one matrix for each criterion.

Cosines are whole multiples of 2^-31, as in `scores.Means`, so that their sums are exact in float64
and depend on no order. No torch here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from interlace.errors import ContractError, InputError
from interlace.scores.table import NATIVE

Sample = tuple[str, str, str]  # domain, task, sample_id
Cells = tuple[NDArray[np.int64], NDArray[np.float32]]  # codes of spans, their cosines
LONGEST = 3  # spans that choices by similarity read, layers
_UNIT = 2.0**31  # cosines are multiples of its inverse
_COLUMNS = ["domain", "task", "sample_id", "first", "span", "cosine"]


@dataclass(frozen=True)
class Measured:
    """Per-sample similarities of one criterion.

    Attributes:
        spans: (first, span) of each column.
        cosines: [N, S], a row per sample, sorted by task and then by sample.
        tasks: how many samples each task has, in order; they add up to N.
    """

    spans: tuple[tuple[int, int], ...]
    cosines: NDArray[np.float64]
    tasks: tuple[int, ...]


def measured(similarity: Path, longest: int = LONGEST) -> dict[str, Measured]:
    """Read the similarities of short spans, a little at a time.

    Args:
        similarity: folder of Parquet files, one row per (sample, first, span).
        longest: spans to read, layers.

    Returns:
        By criterion, `cosine` first; the same however the rows are spread over files.

    Raises:
        InputError: there are no files, or one lacks a column.
        ContractError: a sample lacks a span that others of its domain have.
    """
    found: dict[Sample, list[Cells]] = defaultdict(list)
    for batch in _batches(similarity, longest):
        for sample, cells in _by_sample(batch, longest):
            found[sample].append(cells)
    domains: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(found):
        domains[sample[0]].append(sample)
    criteria = {NATIVE if name == "native" else f"{NATIVE}/{name}": name for name in domains}
    return {
        criterion: _matrix({sample: found[sample] for sample in domains[name]}, longest, similarity)
        for criterion, name in sorted(criteria.items())
    }


def _batches(similarity: Path, longest: int) -> Iterator[pa.RecordBatch]:
    """The rows of short spans."""
    files = sorted(similarity.glob("*.parquet"))
    if not files:
        raise InputError(f"{similarity}: no measurements; run `dvc repro collect`")
    for path in files:
        file = pq.ParquetFile(path)
        if missing := [name for name in _COLUMNS if name not in file.schema_arrow.names]:
            raise InputError(
                f"{path}: column {missing[0]!r} is missing; run `dvc repro -f collect`"
            )
        for batch in file.iter_batches(batch_size=2**16, columns=_COLUMNS):
            yield batch.filter(pc.less_equal(batch["span"], longest))


def _by_sample(batch: pa.RecordBatch, longest: int) -> Iterator[tuple[Sample, Cells]]:
    """A batch's cosines by sample; a span's code is `first * longest + span - 1`."""
    if not batch.num_rows:
        return
    about = [batch[name].dictionary_encode() for name in _COLUMNS[:3]]
    numbers = np.stack([names.indices.to_numpy() for names in about])  # [3, N]
    keys, place = np.unique(numbers, axis=1, return_inverse=True)
    place = place.reshape(-1)  # [N]
    order = np.argsort(place, kind="stable")
    first, span, cosine = (batch[name].to_numpy()[order] for name in _COLUMNS[3:])
    codes = first.astype(np.int64) * longest + span - 1
    ends = np.cumsum(np.bincount(place))
    for key, begin, end in zip(keys.T, [0, *ends[:-1]], ends, strict=True):
        domain, task, sample = (
            names.dictionary[int(number)].as_py() for names, number in zip(about, key, strict=True)
        )
        yield (domain, task, sample), (codes[begin:end].copy(), cosine[begin:end].copy())


def _matrix(found: Mapping[Sample, list[Cells]], longest: int, where: Path) -> Measured:
    """One domain's cosines, by sample and span."""
    codes = np.unique(np.concatenate([cells[0] for cells in next(iter(found.values()))]))
    spans = sorted((int(c % longest) + 1, int(c // longest)) for c in codes)
    column = {first * longest + span - 1: place for place, (span, first) in enumerate(spans)}
    places = np.array([column[int(c)] for c in codes])  # of each code, in their order
    cosines = np.full((len(found), len(codes)), np.nan)
    for row, (sample, cells) in enumerate(found.items()):
        own, values = (np.concatenate(part) for part in zip(*cells, strict=True))
        if not np.array_equal(np.unique(own), codes):
            raise ContractError(
                f"{where}: sample {sample[2]} has other spans than the first of its domain;"
                " run `dvc repro -f collect`"
            )
        cosines[row, places[np.searchsorted(codes, own)]] = values
    cosines = np.rint(cosines * _UNIT) / _UNIT
    tasks = Counter(task for _, task, _ in found)  # in order: the samples are sorted
    return Measured(tuple((f, s) for s, f in spans), cosines, tuple(tasks.values()))
