"""The bootstrap draws samples within their task, and Kendall's tau compares rankings."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from similarity_rows import LAYERS, SPANS, mean_scores, sample_cosines

from interlace.errors import InputError, MissingInputError
from interlace.scores.per_sample import SampleCosines
from interlace.scores.resample import (
    RESAMPLES,
    bootstrap,
    kendall_tau,
    read_replicates,
    replicate_tables,
)
from interlace.scores.table import MATH, NATIVE, NONMATH, Scores


def values_of(replicates: pa.Table, first: int, span: int, criterion: str = NATIVE) -> list[float]:
    """The values of one span over the replicates."""
    return [
        row["value"]
        for row in replicates.to_pylist()
        if (row["criterion"], row["first"], row["span"]) == (criterion, first, span)
    ]


def test_the_spread_of_replicates_is_the_standard_error() -> None:
    samples = sample_cosines(400, 0.05)
    column = SPANS.index((5, 1))
    error = samples.cosines[:, column].std() / math.sqrt(400)
    replicates = bootstrap({NATIVE: samples})
    assert len(replicates) == RESAMPLES * len(SPANS)
    values = values_of(replicates, 5, 1)
    assert np.std(values) == pytest.approx(error, rel=0.2)
    assert np.mean(values) == pytest.approx(samples.cosines[:, column].mean(), abs=error / 3)


def test_all_spans_of_a_replicate_are_of_the_same_samples() -> None:
    samples = sample_cosines(30, 0.05)
    twice = SampleCosines(((0, 1), (1, 1)), samples.cosines[:, [0, 0]], (30,))
    replicates = bootstrap({NATIVE: twice})
    assert values_of(replicates, 0, 1) == values_of(replicates, 1, 1)
    assert len(set(values_of(replicates, 0, 1))) > RESAMPLES / 2


def test_every_sample_is_drawn_and_every_task_keeps_its_number() -> None:
    samples = SampleCosines(tuple((i, 1) for i in range(5)), np.eye(5), (2, 3))
    shares = bootstrap({MATH: samples})["value"].to_numpy().reshape(RESAMPLES, 5)
    assert (shares.max(axis=0) > 0).all()
    assert shares[:, :2].sum(axis=1) == pytest.approx(2 / 5)


def test_the_draws_of_a_criterion_do_not_depend_on_others() -> None:
    math_samples = sample_cosines(6, 0.1)
    alone = bootstrap({MATH: math_samples}).to_pylist()
    together = bootstrap(
        {NATIVE: sample_cosines(9, 0.1), MATH: math_samples, NONMATH: math_samples}
    )
    assert [row for row in together.to_pylist() if row["criterion"] == MATH] == alone
    assert values_of(together, 0, 1, MATH) != values_of(together, 0, 1, NONMATH)


def test_replicates_depend_on_the_seed() -> None:
    samples = {NATIVE: sample_cosines(9, 0.1)}
    assert bootstrap(samples).equals(bootstrap(samples))
    assert not bootstrap(samples).equals(bootstrap(samples, seed=1))


def test_a_score_that_was_not_resampled_is_that_of_the_real_table() -> None:
    replicates = bootstrap(dict.fromkeys((NATIVE, MATH), sample_cosines(5, 0.1)))
    values = mean_scores(sample_cosines(5, 0.1)).values
    scores = Scores(LAYERS, 0, {**values, (NATIVE, 0, 12): 0.5, (MATH, 0, 1): 0.1}, {})
    tables = list(replicate_tables(replicates, scores, [NATIVE]))
    assert all(table.values[NATIVE, 0, 12] == 0.5 for table in tables)
    assert all(table.criteria == {NATIVE} for table in tables)
    assert [table.values[NATIVE, 3, 2] for table in tables] == values_of(replicates, 3, 2)


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "replicates.parquet"
    pq.write_table(pa.table({"replicate": [0]}), path)
    with pytest.raises(InputError, match=r"replicates.*: not a table of resampled"):
        read_replicates(path, mean_scores(sample_cosines()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows.slice(1), "a score does not have 200 resamples"),
        (lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]), "a score does not have 200"),
        (lambda rows: with_value(rows, float("nan")), "a value is missing or not finite"),
        (lambda rows: with_value(rows, None), "a value is missing or not finite"),
        (lambda rows: rows.filter(pc.field("span") < 0), None),
    ],
    ids=["row gone", "row twice", "NaN", "null", "none resampled"],
)
def test_damaged_replicates_are_refused(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], reason: str | None
) -> None:
    path, cosines = tmp_path / "replicates.parquet", sample_cosines()
    pq.write_table(change(bootstrap({NATIVE: cosines})), path)
    if reason is None:
        assert not len(read_replicates(path, mean_scores(cosines)))
        return
    with pytest.raises(MissingInputError, match=f"{path}: {reason}"):
        read_replicates(path, mean_scores(cosines))


def test_replicates_of_another_table_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "replicates.parquet"
    pq.write_table(bootstrap({NATIVE: sample_cosines()}), path)
    with pytest.raises(MissingInputError, match="holds scores that the table of scores does not"):
        read_replicates(path, Scores(LAYERS, 0, {(NATIVE, 0, 1): 0.5}, {}))


def with_value(rows: pa.Table, value: float | None) -> pa.Table:
    """The rows, the first with another value."""
    values = pa.array([value, *rows["value"].to_pylist()[1:]], pa.float64())
    return rows.set_column(4, "value", values)


def slow_tau(left: list[float], right: list[float]) -> float:
    """Kendall's tau-b, pair by pair."""
    agreeing = untied_left = untied_right = 0
    for a, b in combinations(range(len(left)), 2):
        x, y = np.sign(left[a] - left[b]), np.sign(right[a] - right[b])
        agreeing += x * y
        untied_left += x != 0
        untied_right += y != 0
    return float(agreeing / math.sqrt(untied_left * untied_right))


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_that_of_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, 6, (3, 8)).astype(float), rng.integers(0, 6, 8).astype(float)
    expected = [slow_tau(list(row), list(right)) for row in left]
    assert kendall_tau(left, right).tolist() == pytest.approx(expected)


def test_tau_without_any_order_is_not_a_number() -> None:
    assert np.isnan(kendall_tau(np.ones((1, 3)), np.arange(3.0)))
    assert np.isnan(kendall_tau(np.ones((1, 1)), np.ones(1)))
