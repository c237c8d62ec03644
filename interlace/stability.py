"""Would another draw of calibration samples have chosen the same layers? How many samples suffice?

Both questions are answered from the per-sample measurements, without the model: means over
resampled rows are tables of scores like the real one. No torch here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from interlace.errors import InputError
from interlace.plan import Plan
from interlace.scores import NATIVE, Scores

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
RESAMPLES = 200  # draws behind an interval
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the calibration set
LONGEST = 3  # spans that selections by similarity read, layers


@dataclass(frozen=True)
class Measured:
    """Per-sample similarities of one criterion.

    Attributes:
        spans: (first, span) of each column.
        cosines: [N, S], a row per sample.
    """

    spans: tuple[tuple[int, int], ...]
    cosines: Array


def measured(similarity: Path, longest: int = LONGEST) -> dict[str, Measured]:
    """Read the similarities of short spans, by criterion.

    Args:
        similarity: folder of Parquet files, one row per (sample, first, span).
        longest: spans to read, layers.

    Raises:
        InputError: there are no files.
    """
    if not any(similarity.glob("*.parquet")):
        raise InputError(f"{similarity}: no measurements; run `dvc repro collect`")
    columns = ["domain", "sample_id", "first", "span", "cosine"]
    table = ds.dataset(similarity, format="parquet").to_table(
        columns=columns, filter=pc.field("span") <= longest
    )
    found = {}
    for domain in sorted(pc.unique(table["domain"]).to_pylist()):
        part = table.filter(pc.equal(table["domain"], domain)).sort_by(
            [(name, "ascending") for name in ("span", "first", "sample_id")]
        )
        keys = list(
            dict.fromkeys(zip(part["first"].to_pylist(), part["span"].to_pylist(), strict=True))
        )
        cosines = part["cosine"].to_numpy().astype(np.float64).reshape(len(keys), -1).T
        criterion = NATIVE if domain == "native" else f"{NATIVE}/{domain}"
        found[criterion] = Measured(tuple(keys), cosines)
    return found


def resampled(measurements: Mapping[str, Measured], seed: int) -> pa.Table:
    """Means over samples drawn with replacement, `RESAMPLES` times: the bootstrap's tables.

    Args:
        measurements: by criterion.
        seed: of the draws.

    Returns:
        A table of `REPLICATES`.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for criterion, found in measurements.items():
        n = len(found.cosines)
        counts = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)  # [R, N]
        means = counts @ found.cosines / n  # [R, S]
        first, span = np.array(found.spans).T
        columns = {
            "replicate": np.repeat(np.arange(RESAMPLES), len(first)),
            "criterion": [criterion] * means.size,
            "first": np.tile(first, RESAMPLES),
            "span": np.tile(span, RESAMPLES),
            "value": means.ravel(),
        }
        parts.append(pa.table(columns).cast(REPLICATES))
    return pa.concat_tables(parts)


def tables(replicates: pa.Table, scores: Scores) -> Iterator[Scores]:
    """One table of scores per replicate; what was not resampled is that of the real table."""
    ordered = replicates.sort_by([("replicate", "ascending")])
    numbers = ordered["replicate"].to_numpy()
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    for begin, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
        part = ordered.slice(begin, end - begin)
        names = (part[name].to_pylist() for name in ("criterion", "first", "span"))
        drawn = dict(zip(zip(*names, strict=True), part["value"].to_pylist(), strict=True))
        values = {**scores.values, **drawn}
        yield Scores(scores.n_layers, scores.deepstack_layers, values, scores.provenance)


def selection_shares(
    plan: Plan, choose: Callable[[Scores], Plan], draws: Sequence[Scores]
) -> tuple[float, dict[int, float]]:
    """How often another draw of samples chooses the same layers.

    Args:
        plan: the real choice.
        choose: makes a plan from a table.
        draws: tables of resampled scores.

    Returns:
        The share of draws with exactly these drops, and for every layer that any draw drops, the
        share that does.
    """
    drops: Counter[int] = Counter()
    same = 0
    for table in draws:
        dropped = choose(table).drop
        drops.update(dropped)
        same += dropped == plan.drop
    return same / len(draws), {layer: drops[layer] / len(draws) for layer in sorted(drops)}


def kendall_tau(left: Array, right: Array) -> float:
    """Kendall's tau-b of two rankings of the same items: 1 the same order, -1 the reverse.

    Args:
        left: values of n items.
        right: other values of the same items.

    Returns:
        NaN where one of them is constant.
    """
    above = np.triu_indices(len(left), k=1)
    a = np.sign(np.subtract.outer(left, left)[above])
    b = np.sign(np.subtract.outer(right, right)[above])
    norm = np.sqrt(float((a != 0).sum()) * float((b != 0).sum()))
    return float((a * b).sum() / norm) if norm else float("nan")


@dataclass(frozen=True)
class Agreement:
    """How well a smaller calibration set ranks spans as the whole one does.

    Attributes:
        share: of the calibration set.
        samples: that many rows.
        tau: mean Kendall's tau with the whole set over the draws.
        low: 5th percentile over the draws.
        high: 95th percentile.
    """

    share: float
    samples: int
    tau: float
    low: float
    high: float


def agreement_by_size(
    found: Measured, span: int = 3, *, draws: int = 50, seed: int = 0
) -> list[Agreement]:
    """Kendall's tau between the ranking by part of the samples and by all of them.

    Args:
        found: native similarities.
        span: whose ranking is compared: 3, the triplets.
        draws: subsets per size.
        seed: of the draws.

    Returns:
        One entry per size in `SHARES` that holds at least one sample, smallest first.
    """
    columns = [place for place, (_, length) in enumerate(found.spans) if length == span]
    cosines = found.cosines[:, columns]  # [N, spans]
    whole = cosines.mean(axis=0)
    rng = np.random.default_rng(seed)
    rows = []
    for share in SHARES:
        size = int(share * len(cosines))
        if not size:
            continue
        taus = [
            kendall_tau(cosines[rng.permutation(len(cosines))[:size]].mean(axis=0), whole)
            for _ in range(draws)
        ]
        low, high = np.quantile(taus, (0.05, 0.95))
        rows.append(Agreement(share, size, float(np.mean(taus)), float(low), float(high)))
    return rows
