"""How sure a choice is, and how many samples suffice."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from similarity_rows import rows, stored

from interlace.errors import InputError
from interlace.plan.record import Plan, Stability
from interlace.scores.per_sample import Measured, measured
from interlace.scores.resample import (
    REPLICATES,
    RESAMPLES,
    kendall_tau,
    read_replicates,
    resampled,
    tables,
)
from interlace.scores.table import MATH, NATIVE, NONMATH, SLEB, Scores
from interlace.selection.select import select
from interlace.selection.stability import SIZES, calibration_sizes, stability

LAYERS = 12
SPANS = tuple((first, span) for span in (1, 2, 3) for first in range(LAYERS - span + 1))


def made(samples: int = 40, noise: float = 0.0, tasks: tuple[int, ...] = ()) -> Measured:
    """Samples that agree but for noise; cosines are multiples of 2^-31, as they are read."""
    base = np.random.default_rng(3).uniform(0.6, 0.97, len(SPANS))
    spread = np.random.default_rng(4).normal(0, noise, (samples, len(SPANS)))
    return Measured(SPANS, np.rint((base + spread) * 2**31) / 2**31, tasks or (samples,))


def table_of(found: Measured, *criteria: str) -> Scores:
    means = found.cosines.sum(axis=0) / len(found.cosines)
    values = {
        (criterion, first, span): float(mean)
        for criterion in criteria or (NATIVE,)
        for (first, span), mean in zip(found.spans, means, strict=True)
    }
    return Scores(LAYERS, 0, values, {})


def of(replicates: pa.Table, first: int, span: int, criterion: str = NATIVE) -> list[float]:
    """The values of one span over the replicates."""
    return [
        row["value"]
        for row in replicates.to_pylist()
        if (row["criterion"], row["first"], row["span"]) == (criterion, first, span)
    ]


# What is resampled


def test_every_span_has_a_value_in_every_replicate() -> None:
    replicates = resampled({NATIVE: made(5, 0.1)})
    assert replicates.schema == REPLICATES
    assert len(of(replicates, 4, 2)) == RESAMPLES
    assert len(replicates) == RESAMPLES * len(SPANS)


def test_the_spread_of_replicates_is_the_standard_error() -> None:
    found = made(400, 0.05)
    column = SPANS.index((5, 1))
    error = found.cosines[:, column].std() / math.sqrt(400)
    drawn = of(resampled({NATIVE: found}), 5, 1)
    assert np.std(drawn) == pytest.approx(error, rel=0.2)
    assert np.mean(drawn) == pytest.approx(found.cosines[:, column].mean(), abs=error / 3)


def test_all_spans_of_a_replicate_are_of_the_same_samples() -> None:
    found = made(30, 0.05)
    twice = Measured(((0, 1), (1, 1)), found.cosines[:, [0, 0]], (30,))
    replicates = resampled({NATIVE: twice})
    assert of(replicates, 0, 1) == of(replicates, 1, 1)
    assert len(set(of(replicates, 0, 1))) > RESAMPLES / 2


def test_every_task_keeps_its_number_of_samples() -> None:
    apart = np.repeat([[0.25], [0.75]], [3, 9], axis=0)  # the tasks differ, their samples do not
    replicates = resampled({MATH: Measured(((0, 1),), apart, (3, 9))})
    assert set(replicates["value"].to_pylist()) == {apart.mean()}


def test_a_criterion_is_resampled_alike_whatever_else_was_measured() -> None:
    alone = resampled({MATH: made(6, 0.1)}).to_pylist()
    together = resampled({NATIVE: made(9, 0.1), MATH: made(6, 0.1)}).to_pylist()
    assert [row for row in together if row["criterion"] == MATH] == alone


def test_criteria_are_drawn_apart() -> None:
    replicates = resampled({MATH: made(6, 0.1), NONMATH: made(6, 0.1)})
    assert of(replicates, 0, 1, MATH) != of(replicates, 0, 1, NONMATH)


def test_the_same_measurements_give_the_same_replicates_however_they_are_stored(
    tmp_path: Path,
) -> None:
    frame = rows(samples=9, domains=("native", "math"))
    one = resampled(measured(stored(tmp_path / "one", frame)))
    two = resampled(measured(stored(tmp_path / "two", frame.iloc[::-1], parts=3)))
    assert one.equals(two)


def test_another_seed_draws_other_samples() -> None:
    found = {NATIVE: made(20, 0.1)}
    assert resampled(found, seed=0) != resampled(found, seed=1)


# A choice and its replicates


def test_what_was_not_resampled_is_as_the_real_table_says() -> None:
    replicates = resampled({NATIVE: made(5, 0.1)})
    scores = table_of(made(5, 0.1))
    scores = Scores(LAYERS, 0, {**scores.values, (NATIVE, 0, 12): 0.5, (MATH, 0, 1): 0.1}, {})
    drawn = list(tables(replicates, scores, [NATIVE]))
    assert len(drawn) == RESAMPLES
    assert all(table.values[NATIVE, 0, 12] == 0.5 for table in drawn)
    assert all(table.criteria == {NATIVE} for table in drawn)
    assert [table.values[NATIVE, 3, 2] for table in drawn] == of(replicates, 3, 2)


def replicates_of(tables: list[Scores]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"replicate": number, "criterion": c, "first": first, "span": span, "value": value}
            for number, table in enumerate(tables)
            for (c, first, span), value in table.values.items()
        ],
        schema=REPLICATES,
    )


def raised(scores: Scores, *keys: tuple[int, int]) -> Scores:
    """The same table, with these spans the most redundant ones."""
    best = {(NATIVE, first, span): 0.99 - first / 1e3 for first, span in keys}
    return Scores(LAYERS, 0, {**scores.values, **best}, {})


def judged(scores: Scores, draws: list[Scores], **asked: Any) -> tuple[Plan, Stability]:
    plan = select(scores, **asked)
    sure = stability(plan, scores, replicates_of(draws), asked)
    assert sure is not None
    return plan, sure


def test_shares_are_of_draws_that_drop_the_same_layers_and_each_layer() -> None:
    real = raised(table_of(made()), (2, 1), (8, 1))
    other = raised(table_of(made()), (2, 1), (6, 1))
    plan, sure = judged(real, [real, real, real, other], method="shortgpt", drops=2)
    assert plan.drop == [2, 8]
    assert sure == Stability(draws=4, same=0.75, dropped={2: 1.0, 6: 0.25, 8: 0.75})


def test_the_choice_is_made_again_with_its_own_settings() -> None:
    real = raised(table_of(made()), (0, 1))
    _, sure = judged(real, [real, real], method="shortgpt", drops=3, protect_first=4)
    assert sure.same == 1 and min(sure.dropped) >= 4 and len(sure.dropped) == 3


def test_a_draw_by_which_nothing_can_be_chosen_counts_as_different() -> None:
    asked = {"method": "interlace", "drops": 4, "shortfall": "error"}
    real = raised(table_of(made()), *((first, 3) for first in (0, 3, 6, 9)))
    blocked = raised(table_of(made()), (1, 3))  # layer 0 is left alone, and 8 are not 9
    with pytest.raises(InputError, match="largest feasible K"):
        select(blocked, **asked)  # type: ignore[arg-type]
    plan, sure = judged(real, [real, blocked], **asked)
    assert sure.same == 0.5 and sure.dropped == dict.fromkeys(plan.drop, 0.5)


@pytest.mark.parametrize("method", ["interlace", "interlace-optimal", "shortgpt", "consecutive"])
def test_samples_that_agree_leave_no_doubt(method: str) -> None:
    found = made(10)
    asked = {"method": method, "ratio": 0.25}
    scores = table_of(found)
    plan = select(scores, **asked)  # type: ignore[arg-type]
    sure = stability(plan, scores, resampled({NATIVE: found}), asked)
    assert sure and sure.same == 1 and sure.dropped == dict.fromkeys(plan.drop, 1.0)


def test_samples_that_disagree_leave_doubt() -> None:
    found = made(10, noise=0.3)
    sure = stability(select(table_of(found)), table_of(found), resampled({NATIVE: found}), {})
    assert sure and 0 < sure.same < 0.9


def test_probes_decide_on_methods_that_read_probes() -> None:
    calm, wild = made(10), made(10, noise=0.3)
    scores = table_of(calm, NATIVE, MATH, NONMATH)
    asked = {"method": "mixed", "ratio": 0.3}
    plan = select(scores, **asked)  # type: ignore[arg-type]
    for found, sure in ((calm, True), (wild, False)):
        replicates = resampled({NATIVE: made(10, 0.3), MATH: found, NONMATH: found})
        judged = stability(plan, scores, replicates, asked)
        assert judged and (judged.same == 1) is sure


@pytest.mark.parametrize("method", ["random", "dense-ft", "manual", "sleb"])
def test_a_method_that_reads_nothing_resampled_has_no_stability(method: str) -> None:
    scores = table_of(made())
    order = {(SLEB, layer, 1): float(layer) for layer in range(1, 6)}
    scores = Scores(LAYERS, 0, {**scores.values, **order}, {})
    asked: dict[str, Any] = {"method": method, "ratio": 0.25}
    asked |= {"drop": [3], "tune": [4]} if method == "manual" else {}
    plan = select(scores, **asked)
    assert stability(plan, scores, resampled({NATIVE: made(4)}), asked) is None


def test_a_choice_in_rounds_has_no_stability() -> None:
    scores = table_of(made())
    plan = select(scores).model_copy(update={"rounds": 2})
    assert stability(plan, scores, resampled({NATIVE: made(4)}), {}) is None


def test_a_plan_keeps_its_stability_in_a_file() -> None:
    sure = Stability(draws=200, same=0.87, dropped={7: 0.61})
    plan = select(table_of(made())).model_copy(update={"stability": sure})
    assert Plan.model_validate_json(plan.model_dump_json()).stability == sure


def test_replicates_that_are_not_there_or_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "replicates.parquet"
    with pytest.raises(InputError, match="no such file; run `dvc repro score`"):
        read_replicates(path)
    path.write_text("replicate,value")
    with pytest.raises(InputError, match="not a Parquet file"):
        read_replicates(path)
    pq.write_table(pa.table({"replicate": [0]}), path)
    with pytest.raises(InputError, match="not the tables that `score` resamples"):
        read_replicates(path)
    pq.write_table(resampled({NATIVE: made(3)}), path)
    assert len(read_replicates(path)) == RESAMPLES * len(SPANS)


# Rankings by parts of the samples


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


def test_tau_of_the_same_order_is_one_and_of_the_reverse_minus_one() -> None:
    right = np.array([1.0, 2.0, 5.0])
    assert kendall_tau(np.array([[3.0, 4.0, 9.0], [2.0, 1.0, 0.0]]), right).tolist() == [1, -1]


def test_tau_without_any_order_is_not_a_number() -> None:
    assert np.isnan(kendall_tau(np.ones((1, 3)), np.arange(3.0)))
    assert np.isnan(kendall_tau(np.ones((1, 1)), np.ones(1)))


def sizes(found: Measured) -> dict[str, list[Any]]:
    table = calibration_sizes({NATIVE: found}, table_of(found))
    assert table.schema == SIZES
    return table.to_pydict()  # type: ignore[no-any-return]


def test_sizes_are_parts_of_the_calibration_set() -> None:
    found = sizes(made(100))
    assert found["samples"] == [1, 2, 5, 10, 20, 50]
    assert found["share"] == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]


def test_parts_without_a_sample_are_left_out() -> None:
    assert sizes(made(6))["samples"] == [1, 3]
    assert sizes(made(1))["samples"] == []


def test_a_part_is_ranked_by_its_own_samples_alone() -> None:
    two = made(2, noise=0.3)
    column = [place for place, (_, span) in enumerate(SPANS) if span == 1]
    singles = kendall_tau(two.cosines[:, column], two.cosines.mean(axis=0)[column])
    found = sizes(two)
    assert found["samples"] == [1] and len(set(singles)) == 2
    assert found["tau_1_low"] + found["tau_1_high"] == pytest.approx(sorted(singles))


def test_samples_that_agree_rank_alike_at_any_size() -> None:
    found = sizes(made(20))
    for column in ("tau_1", "tau_3", "tau_1_low", "tau_3_high", "same"):
        assert set(found[column]) == {1.0}


def test_more_samples_agree_better_with_all_of_them() -> None:
    found = sizes(made(100, noise=0.3))
    for column in ("tau_1", "tau_3", "same"):
        assert found[column] == sorted(found[column])
        assert found[column][0] < found[column][-1] <= 1


def test_the_band_holds_the_mean() -> None:
    found = sizes(made(100, noise=0.1))
    for name in ("tau_1", "tau_3"):
        bands = zip(found[f"{name}_low"], found[name], found[f"{name}_high"], strict=True)
        assert all(low < mean < high for low, mean, high in bands)


def test_without_triplets_only_layers_are_compared() -> None:
    alone = [column for column, (_, span) in enumerate(SPANS) if span == 1]
    every = made(20, 0.1)
    found = sizes(Measured(tuple(SPANS[i] for i in alone), every.cosines[:, alone], (20,)))
    assert None not in found["tau_1"]
    assert set(found["tau_3"]) == set(found["same"]) == {None}


def test_without_a_calibration_set_there_are_no_sizes() -> None:
    assert calibration_sizes({MATH: made(9)}, table_of(made())).equals(SIZES.empty_table())


# The stages


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `score` and `select` leave behind, run where there are measurements."""
    from click.testing import CliRunner

    from stages import score, select_layers

    folder = tmp_path_factory.mktemp("workspace")
    frame = rows(samples=24, layers=9, domains=("native", "math"), noise=0.2)
    stored(folder / "artifacts/hidden_states/similarity", frame)
    (folder / "artifacts/budget.json").write_text("null")
    (folder / "params.yaml").write_text("model: {id: m}\ndata: {id: d}\nratio: 0.25\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DVC_STAGE", raising=False)
        for stage in (score, select_layers):
            done = CliRunner().invoke(stage.main, ["--params", "params.yaml"])
            assert done.exit_code == 0, done.output
    return folder


def test_score_writes_the_replicates(workspace: Path) -> None:
    found = read_replicates(workspace / "artifacts/replicates.parquet")
    assert set(found["criterion"].to_pylist()) == {NATIVE, MATH}


def test_score_writes_the_agreement_by_size(workspace: Path) -> None:
    lines = (workspace / "metrics/calibration_size.csv").read_text().splitlines()
    assert lines[0].replace('"', "").split(",") == SIZES.names
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "5", "12"]


def test_select_writes_how_sure_it_is(workspace: Path) -> None:
    plan = Plan.model_validate_json((workspace / "artifacts/plan.json").read_text())
    assert plan.stability and plan.stability.draws == RESAMPLES
    assert 0 < plan.stability.same < 1
