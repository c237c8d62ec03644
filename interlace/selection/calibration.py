"""Agreement of layer rankings by the size of the calibration set, from measurements alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from interlace.errors import InputError
from interlace.methods.interlace import INTERLACE
from interlace.params.choosing import Select
from interlace.scores.per_sample import SampleCosines
from interlace.scores.resample import Array, kendall_tau
from interlace.scores.table import NATIVE, SINKS, Scores
from interlace.selection.by_rule import plan_by_rule
from interlace.system.rounding import numbers_rounded

SIZES = pa.schema(
    [
        ("samples", pa.int64()),
        ("share", pa.float64()),
        *((f"tau_{span}{end}", pa.float64()) for span in (1, 3) for end in ("", "_low", "_high")),
        ("same", pa.float64()),
    ]
)
SUBSETS = 100  # draws of each smaller size
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of the calibration set
RATIO = 0.25  # at which INTERLACE's choices are compared over sizes
_BAND = (0.05, 0.95)  # quantiles over the draws


def calibration_sizes(
    cosines: Mapping[str, SampleCosines], scores: Scores, seed: int = 0
) -> pa.Table:
    """Compare the ranking by subsets of the calibration set with that by all of it.

    Args:
        cosines: by criterion; those of the calibration set count.
        scores: the real table, for the shape of the decoder.
        seed: of the `SUBSETS` draws, without replacement; smaller subsets lie within larger ones.

    Returns:
        A table of `SIZES`, a row for each of `SHARES` that holds a sample: Kendall's tau of `S_1`
        and of `S_3` between the subset and the full set, mean and 5% and 95% quantiles over the
        draws, and the share of draws in which INTERLACE at `RATIO` drops the same layers.
    """
    if NATIVE not in cosines:
        return SIZES.empty_table()
    samples = cosines[NATIVE]
    n, rng = len(samples.cosines), np.random.default_rng(seed)
    ranks = rng.permuted(np.tile(np.arange(n, dtype=np.int32), (SUBSETS, 1)), axis=1)  # [D, N]
    full = samples.cosines.sum(axis=0) / n  # [S]
    reference = _interlace_drop(samples, full, scores)
    rows = []
    for size in sorted({round(share * n) for share in SHARES} - {0}):
        means = (ranks < size).astype(np.float64) @ samples.cosines / size  # [D, S]
        same = [_interlace_drop(samples, mean, scores) == reference for mean in means]
        row = {"samples": size, "share": size / n} | _taus(samples, means, full)
        row |= {"same": sum(same) / SUBSETS} if reference else {}
        rows.append(numbers_rounded(row))
    return pa.Table.from_pylist(rows, schema=SIZES)


def _taus(samples: SampleCosines, means: Array, full: Array) -> dict[str, float]:
    """Return the agreement of `S_1` and of `S_3` over the draws; neither if unordered."""
    length = np.array([span for _, span in samples.spans])
    row: dict[str, float] = {}
    for span in (1, 3):
        taus = kendall_tau(means[:, length == span], full[length == span])
        if np.isfinite(taus).all():
            low, high = np.quantile(taus, _BAND)
            values = {"": taus.mean(), "_low": low, "_high": high}
            row |= {f"tau_{span}{end}": float(value) for end, value in values.items()}
    return row


def _interlace_drop(samples: SampleCosines, means: Array, scores: Scores) -> list[int]:
    """Return the layers that INTERLACE drops by these means; none if it cannot choose."""
    keys = [(NATIVE, first, span) for first, span in samples.spans]
    sinks = {key: value for key, value in scores.values.items() if key[0] in SINKS}
    table = replace(scores, values=sinks | dict(zip(keys, means.tolist(), strict=True)))
    try:
        return plan_by_rule(table, "interlace", INTERLACE, RATIO, Select()).drop
    except InputError:
        return []
