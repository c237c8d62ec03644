"""Would another draw of calibration samples have chosen the same layers? How many samples suffice?

Both are answered from the per-sample measurements, without the model: means over samples drawn
anew are tables of scores like the real one. No torch here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from interlace.errors import InputError
from interlace.methods.registry import named
from interlace.plan.record import Plan, Stability
from interlace.scores.per_sample import Measured
from interlace.scores.resample import Array, kendall_tau, tables
from interlace.scores.table import NATIVE, Scores
from interlace.selection.select import select

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


def stability(
    plan: Plan, scores: Scores, replicates: pa.Table, asked: Mapping[str, Any]
) -> Stability | None:
    """How often another draw of samples drops the same layers.

    A draw by which the layers cannot be chosen counts as one that drops none.

    Args:
        plan: the real choice.
        scores: the table it was made from.
        replicates: of `REPLICATES`.
        asked: what `plan.select` was told of the real choice, by name.

    Returns:
        None where the choice reads nothing that was resampled, or was made in several rounds.
    """
    needs = set(named(plan.method).needs)
    drawn = set(pc.unique(replicates["criterion"]).to_pylist())
    if plan.rounds > 1 or not needs or not needs <= drawn:
        return None
    drops = [_drop(table, asked) for table in tables(replicates, scores, needs)]
    often = Counter(layer for drop in drops for layer in drop)
    return Stability(
        draws=len(drops),
        same=drops.count(plan.drop) / len(drops),
        dropped={layer: often[layer] / len(drops) for layer in sorted(often)},
    )


def _drop(table: Scores, asked: Mapping[str, Any]) -> list[int]:
    """What goes by this table; nothing where no choice can be made."""
    try:
        return select(table, **asked).drop
    except InputError:
        return []


def calibration_sizes(
    measurements: Mapping[str, Measured], scores: Scores, seed: int = 0
) -> pa.Table:
    """How well parts of the calibration set rank layers as all of it does.

    Args:
        measurements: by criterion; those of the calibration set count.
        scores: the real table, for what it says about the decoder.
        seed: of the `SUBSETS` draws, without replacement; smaller parts lie within larger ones.

    Returns:
        A table of `SIZES`, a row for each of `SHARES` that holds a sample: Kendall's tau of `S_1`
        and of `S_3` between the part and the whole, mean and 5% and 95% quantiles over the draws,
        and the share of draws in which INTERLACE at `RATIO` drops the same layers as on the whole.
    """
    if NATIVE not in measurements:
        return SIZES.empty_table()
    found = measurements[NATIVE]
    n, rng = len(found.cosines), np.random.default_rng(seed)
    ranks = rng.permuted(np.tile(np.arange(n, dtype=np.int32), (SUBSETS, 1)), axis=1)  # [D, N]
    whole = found.cosines.sum(axis=0) / n  # [S]
    reference = _interlace(found, whole, scores)
    rows = []
    for size in sorted({round(share * n) for share in SHARES} - {0}):
        means = (ranks < size).astype(np.float64) @ found.cosines / size  # [D, S]
        same = [_interlace(found, mean, scores) == reference for mean in means]
        row = {"samples": size, "share": size / n} | _taus(found, means, whole)
        rows.append(row | ({"same": sum(same) / SUBSETS} if reference else {}))
    return pa.Table.from_pylist(rows, schema=SIZES)


def _taus(found: Measured, means: Array, whole: Array) -> dict[str, float]:
    """Agreement of `S_1` and of `S_3` over the draws; nothing where a ranking has no order."""
    length = np.array([span for _, span in found.spans])
    row: dict[str, float] = {}
    for span in (1, 3):
        taus = kendall_tau(means[:, length == span], whole[length == span])
        if np.isfinite(taus).all():
            low, high = np.quantile(taus, _BAND)
            values = {"": taus.mean(), "_low": low, "_high": high}
            row |= {f"tau_{span}{end}": float(value) for end, value in values.items()}
    return row


def _interlace(found: Measured, means: Array, scores: Scores) -> list[int]:
    """The layers that INTERLACE drops by these means; none where it cannot."""
    keys = [(NATIVE, first, span) for first, span in found.spans]
    table = replace(scores, values=dict(zip(keys, means.tolist(), strict=True)))
    return _drop(table, {"method": "interlace", "ratio": RATIO})
