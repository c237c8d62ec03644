"""Would another draw of calibration samples have chosen the same layers? How many samples suffice?

Both are answered from the per-sample measurements, without the model: means over samples drawn
anew are tables of scores like the real one. No torch here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from interlace.errors import InputError
from interlace.methods import named
from interlace.plan import Plan, Stability, select
from interlace.scores import NATIVE, Scores
from interlace.similarities import Measured

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
SIZES = pa.schema(
    [
        ("samples", pa.int64()),
        ("share", pa.float64()),
        *((f"tau_{span}{end}", pa.float64()) for span in (1, 3) for end in ("", "_low", "_high")),
        ("same", pa.float64()),
    ]
)
RESAMPLES = 200  # tables of the bootstrap
SUBSETS = 100  # draws of each smaller size
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of the calibration set
RATIO = 0.25  # at which INTERLACE's choices are compared over sizes
_BLOCK = 25  # resamples worked out at once
_BAND = (0.05, 0.95)  # quantiles over the draws


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
