"""How sure a choice is, and how many samples suffice."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from similarity_rows import LAYERS, SPANS, mean_scores, rows, sample_cosines, stored

from interlace.errors import InputError
from interlace.plan.record import Plan, Stability, read_plan
from interlace.scores.per_sample import SampleCosines
from interlace.scores.resample import (
    REPLICATES,
    RESAMPLES,
    bootstrap,
    kendall_tau,
    read_replicates,
)
from interlace.scores.table import MATH, NATIVE, NONMATH, SLEB, Scores, read_scores
from interlace.selection.calibration import SIZES, calibration_sizes
from interlace.selection.select import select
from interlace.selection.stability import stability
from interlace.system.rounding import significant


def replicates_of(tables: list[Scores]) -> pa.Table:
    replicates = [
        {"replicate": number, "criterion": c, "first": first, "span": span, "value": value}
        for number, table in enumerate(tables)
        for (c, first, span), value in table.values.items()
    ]
    return pa.Table.from_pylist(replicates, schema=REPLICATES)


def raised(*keys: tuple[int, int]) -> Scores:
    """A table in which these spans are the most redundant ones."""
    best = {(NATIVE, first, span): 0.99 - first / 1e3 for first, span in keys}
    return Scores(LAYERS, 0, {**mean_scores(sample_cosines()).values, **best}, {})


def judged(scores: Scores, replicates: pa.Table, **options: Any) -> tuple[Plan, Stability | None]:
    choose = partial(select, **options)
    plan = choose(scores)
    return plan, stability(plan, scores, replicates, choose)


def test_shares_are_of_draws_that_drop_the_same_layers_and_each_layer() -> None:
    real, other = raised((2, 1), (8, 1)), raised((2, 1), (6, 1))
    replicates = replicates_of([real, real, real, other])
    plan, sure = judged(real, replicates, method="shortgpt", drops=2)
    assert plan.drop == [2, 8]
    assert sure == Stability(draws=4, same=0.75, dropped={2: 1.0, 6: 0.25, 8: 0.75})


def test_a_draw_by_which_nothing_can_be_chosen_counts_as_different() -> None:
    real = raised(*((first, 3) for first in (0, 3, 6, 9)))
    blocked = raised((1, 3))  # layer 0 is left alone, and 8 are not 9
    with pytest.raises(InputError, match="largest feasible K"):
        select(blocked, drops=4, shortfall="error")
    plan, sure = judged(real, replicates_of([real, blocked]), drops=4, shortfall="error")
    assert sure == Stability(draws=2, same=0.5, dropped=dict.fromkeys(plan.drop, 0.5))


@pytest.mark.parametrize("method", ["interlace", "interlace-optimal", "consecutive", "mixed"])
def test_samples_that_agree_leave_no_doubt_and_others_do(method: str) -> None:
    read = (MATH, NONMATH) if method == "mixed" else (NATIVE,)
    for noise in (0.0, 0.3):
        samples = sample_cosines(10, noise)
        cosines = {NATIVE: sample_cosines(10, 0.3)} | dict.fromkeys(read, samples)
        _, sure = judged(mean_scores(samples, *read), bootstrap(cosines), method=method)
        assert sure and (sure.same == 1) is not bool(noise)


@pytest.mark.parametrize("method", ["random", "dense-ft", "manual", "sleb", "mixed"])
def test_a_method_that_reads_nothing_resampled_has_no_stability(method: str) -> None:
    order = {(SLEB, layer, 1): float(layer) for layer in range(1, 6)}
    samples = sample_cosines(4)
    scores = Scores(LAYERS, 0, {**mean_scores(samples, NATIVE, MATH, NONMATH).values, **order}, {})
    replicates = bootstrap({NATIVE: samples, MATH: samples})
    _, sure = judged(scores, replicates, method=method, drop=[3])
    assert sure is None


def test_a_choice_in_rounds_has_no_stability() -> None:
    scores = mean_scores(sample_cosines())
    plan = select(scores).model_copy(update={"rounds": 2})
    assert stability(plan, scores, bootstrap({NATIVE: sample_cosines(4)}), select) is None


def sizes(samples: SampleCosines) -> dict[str, list[Any]]:
    table = calibration_sizes({NATIVE: samples}, mean_scores(samples))
    assert table.schema == SIZES
    return table.to_pydict()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("samples", "expected"), [(100, [1, 2, 5, 10, 20, 50]), (6, [1, 3]), (1, [])]
)
def test_sizes_are_shares_of_the_calibration_set(samples: int, expected: list[int]) -> None:
    table = sizes(sample_cosines(samples))
    assert table["samples"] == expected
    assert table["share"] == [significant(size / samples) for size in expected]


def test_a_subset_is_ranked_by_its_own_samples_alone() -> None:
    two = sample_cosines(2, noise=0.3)
    column = [index for index, (_, span) in enumerate(SPANS) if span == 1]
    singles = kendall_tau(two.cosines[:, column], two.cosines.mean(axis=0)[column])
    table = sizes(two)
    assert table["samples"] == [1] and len(set(singles)) == 2
    assert table["tau_1_low"] + table["tau_1_high"] == [*map(significant, sorted(singles))]


def test_larger_subsets_agree_better_and_the_band_holds_the_mean() -> None:
    table = sizes(sample_cosines(100, noise=0.3))
    for name in ("tau_1", "tau_3", "same"):
        assert table[name] == sorted(table[name])
        assert table[name][0] < table[name][-1] <= 1
        assert set(sizes(sample_cosines(20))[name]) == {1.0}  # samples that agree
    for name in ("tau_1", "tau_3"):
        bands = zip(table[f"{name}_low"], table[name], table[f"{name}_high"], strict=True)
        assert all(low < mean < high for low, mean, high in bands)


def test_without_triplets_only_layers_are_compared() -> None:
    single = [column for column, (_, span) in enumerate(SPANS) if span == 1]
    cosines = sample_cosines(20, 0.1).cosines[:, single]
    table = sizes(SampleCosines(tuple(SPANS[i] for i in single), cosines, (20,)))
    assert None not in table["tau_1"]
    assert set(table["tau_3"]) == set(table["same"]) == {None}


def test_without_a_calibration_set_there_are_no_sizes() -> None:
    table = calibration_sizes({MATH: sample_cosines(9)}, mean_scores(sample_cosines()))
    assert table.equals(SIZES.empty_table())


def test_score_and_select_write_replicates_sizes_and_stability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from stages import score, select

    artifacts = tmp_path / "artifacts"
    frame = rows(samples=24, layers=9, domains=("native", "math"), noise=0.2)
    stored(artifacts / "hidden_states/similarity", frame)
    (artifacts / "budget.json").write_text("null")
    (tmp_path / "params.yaml").write_text("model: {id: m}\ndata: {id: d}\nratio: 0.25\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    for stage in (score, select):
        result = CliRunner().invoke(stage.main, ["--params", "params.yaml"])
        assert result.exit_code == 0, result.output
    replicates = read_replicates(
        artifacts / "replicates.parquet", read_scores(artifacts / "scores.parquet")
    )
    assert set(replicates["criterion"].to_pylist()) == {NATIVE, MATH}
    lines = (tmp_path / "metrics/calibration_size.csv").read_text().splitlines()
    assert [line.split(",")[0].strip('"') for line in lines] == ["samples", "1", "2", "5", "12"]
    plan = read_plan(artifacts / "plan.json")
    assert plan.stability and plan.stability.draws == RESAMPLES
    assert 0 < plan.stability.same < 1
