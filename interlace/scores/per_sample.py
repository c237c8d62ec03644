"""Measured cosines by sample: those of short spans as one matrix for each criterion.

Cosines are whole multiples of 2^-31, as in the average, so that their sums are exact in float64 and
do not depend on the order. No torch here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from interlace.errors import ContractError
from interlace.scores.table import NATIVE, UNIT, measurement_batches, measurement_files

Sample = tuple[str, str, str]  # domain, task, sample_id
Cells = tuple[NDArray[np.int64], NDArray[np.float32]]  # codes of spans, their cosines
LONGEST = 3  # spans that choices by similarity read, layers
_COLUMNS = ["domain", "task", "sample_id", "first", "span", "cosine"]


@dataclass(frozen=True)
class SampleCosines:
    """Per-sample similarities of one criterion.

    Attributes:
        spans: (first, span) of each column.
        cosines: [N, S], a row per sample, sorted by task and then by sample.
        tasks: how many samples each task has, in order; they add up to N.
    """

    spans: tuple[tuple[int, int], ...]
    cosines: NDArray[np.float64]
    tasks: tuple[int, ...]


def read_sample_cosines(similarity: Path, longest: int = LONGEST) -> dict[str, SampleCosines]:
    """Read the similarities of short spans, in small batches.

    Args:
        similarity: folder of Parquet files, one row per (sample, first, span).
        longest: spans to read, layers.

    Returns:
        By criterion, `cosine` first; the same however the rows are spread over files.

    Raises:
        InputError: there are no files, or one lacks a column.
        ContractError: a sample lacks a span that others of its domain have.
    """
    cells: dict[Sample, list[Cells]] = defaultdict(list)
    for path in measurement_files(similarity):
        for batch in measurement_batches(path, _COLUMNS, rows=2**16):
            short = batch.filter(pc.less_equal(batch["span"], longest))
            for sample, sample_cells in _by_sample(short, longest):
                cells[sample].append(sample_cells)
    domains: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(cells):
        domains[sample[0]].append(sample)
    criteria = {NATIVE if name == "native" else f"{NATIVE}/{name}": name for name in domains}
    return {
        criterion: _matrix({sample: cells[sample] for sample in domains[name]}, longest, similarity)
        for criterion, name in sorted(criteria.items())
    }


def _by_sample(batch: pa.RecordBatch, longest: int) -> Iterator[tuple[Sample, Cells]]:
    """Yield a batch's cosines by sample; a span's code is `first * longest + span - 1`."""
    if not batch.num_rows:
        return
    names = [batch[column].dictionary_encode() for column in _COLUMNS[:3]]
    numbers = np.stack([encoded.indices.to_numpy() for encoded in names])  # [3, N]
    keys, index = np.unique(numbers, axis=1, return_inverse=True)
    index = index.reshape(-1)  # [N]
    order = np.argsort(index, kind="stable")
    first, span, cosine = (batch[column].to_numpy()[order] for column in _COLUMNS[3:])
    codes = first.astype(np.int64) * longest + span - 1
    ends = np.cumsum(np.bincount(index))
    for key, begin, end in zip(keys.T, [0, *ends[:-1]], ends, strict=True):
        domain, task, sample = (
            encoded.dictionary[int(number)].as_py()
            for encoded, number in zip(names, key, strict=True)
        )
        yield (domain, task, sample), (codes[begin:end].copy(), cosine[begin:end].copy())


def _matrix(cells: Mapping[Sample, list[Cells]], longest: int, similarity: Path) -> SampleCosines:
    """Arrange one domain's cosines by sample and span."""
    codes = np.unique(np.concatenate([codes for codes, _ in next(iter(cells.values()))]))
    spans = sorted((int(code % longest) + 1, int(code // longest)) for code in codes)
    column_of = {first * longest + span - 1: i for i, (span, first) in enumerate(spans)}
    columns = np.array([column_of[int(code)] for code in codes])
    cosines = np.full((len(cells), len(codes)), np.nan)
    for row, (sample, sample_cells) in enumerate(cells.items()):
        sample_codes, values = (
            np.concatenate(arrays) for arrays in zip(*sample_cells, strict=True)
        )
        if not np.array_equal(np.unique(sample_codes), codes):
            raise ContractError(
                f"{similarity}: sample {sample[2]} has other spans than the first of its domain;"
                " measure again"
            )
        cosines[row, columns[np.searchsorted(codes, sample_codes)]] = values
    cosines = np.rint(cosines * UNIT) / UNIT
    tasks = Counter(task for _, task, _ in cells)  # in order: the samples are sorted
    return SampleCosines(tuple((f, s) for s, f in spans), cosines, tuple(tasks.values()))
