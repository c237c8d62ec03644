"""Scores are means over samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from similarity_rows import rows, stored

from interlace.errors import ContractError, InputError
from interlace.scores.average import profile, score
from interlace.scores.table import SCHEMA, read_scores
from interlace.system.rounding import cosine

FRAME = rows(12, layers=5, longest=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Measurements of five layers by twelve samples."""
    return stored(tmp_path / "similarity", FRAME)


def by_key(table: pa.Table, column: str = "value") -> dict[tuple[str, int, int], Any]:
    return {(r["criterion"], r["first"], r["span"]): r[column] for r in table.to_pylist()}


def check_means(table: pa.Table, criterion: str, frame: pd.DataFrame, column: str) -> None:
    """Check values and standard errors of all spans against pandas."""
    values, errors = by_key(table), by_key(table, "standard_error")
    groups = frame.groupby(["first", "span"])[column]
    assert len(groups) == sum(key[0] == criterion for key in values)
    for (first, span), samples in groups:
        samples = samples.astype(float)
        assert values[criterion, first, span] == pytest.approx(samples.mean(), abs=1e-9)
        assert errors[criterion, first, span] == pytest.approx(samples.sem(), rel=1e-6)
        assert by_key(table, "n")[criterion, first, span] == len(samples)


def test_a_score_is_the_mean_over_samples_and_angles_are_of_the_last_token(folder: Path) -> None:
    angles = [math.acos(cosine) / math.pi for cosine in FRAME["cosine_last"].astype(np.float32)]
    table = score(folder)
    check_means(table, "cosine", FRAME.astype({"cosine": np.float32}), "cosine")
    check_means(table, "angular", FRAME.assign(angle=angles), "angle")


def test_a_standard_error_is_exact_for_close_cosines_and_missing_for_one(tmp_path: Path) -> None:
    spread = np.random.default_rng(0).normal(size=len(FRAME))
    frame = FRAME.assign(cosine=np.float32(0.9999 + 1e-6 * spread))
    check_means(score(stored(tmp_path / "close", frame)), "cosine", frame, "cosine")
    single = score(stored(tmp_path / "single", rows(1)))
    assert set(single["standard_error"].to_pylist()) == {None}


def test_domains_are_criteria_of_their_own_and_change_no_native_score(tmp_path: Path) -> None:
    frame = rows(4, domains=("native", "math"))
    native, math_rows = (frame[frame["domain"] == name] for name in ("native", "math"))
    table = score(stored(tmp_path / "both", frame))
    check_means(table, "cosine/math", math_rows.astype({"cosine": np.float32}), "cosine")
    alone = score(stored(tmp_path / "alone", native)).to_pylist()
    assert [row for row in table.to_pylist() if row["criterion"] != "cosine/math"] == alone
    assert {row["criterion"] for row in alone} == {"cosine", "angular"}


def test_a_cosine_that_rounding_took_past_one_is_an_angle_of_zero(tmp_path: Path) -> None:
    frame = FRAME.assign(cosine_last=np.nextafter(np.float32(1), np.float32(2)))
    values = by_key(score(stored(tmp_path / "s", frame)))
    assert {value for (criterion, *_), value in values.items() if criterion == "angular"} == {0.0}


def test_scores_do_not_depend_on_how_measurements_lie_in_files(
    folder: Path, tmp_path: Path
) -> None:
    many = stored(tmp_path / "many", FRAME.sample(frac=1, random_state=0), parts=4)
    assert score(folder).equals(score(many))


@pytest.mark.parametrize("column", ["cosine", "cosine_last"])
def test_a_cosine_that_is_not_finite_names_the_file(tmp_path: Path, column: str) -> None:
    with pytest.raises(ContractError, match=r"part-00000\.parquet: .* not finite"):
        score(stored(tmp_path / "s", FRAME.assign(**{column: math.inf})))


def test_a_missing_measurement_names_the_file_and_the_column(folder: Path, tmp_path: Path) -> None:
    path = folder / "part-00000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["cosine_last"]), path)
    with pytest.raises(InputError, match=r"part-00000\.parquet: column 'cosine_last'"):
        score(folder)
    with pytest.raises(InputError, match=r"no measurements"):
        score(tmp_path)


def test_the_table_carries_the_metadata_of_the_measurements(tmp_path: Path) -> None:
    folder = stored(tmp_path / "s", FRAME, n_layers="6", deepstack_layers="3", device="cpu")
    scores = read_scores(score(folder))
    assert (scores.n_layers, scores.deepstack_layers) == (6, 3)  # the last layer has no score
    assert scores.provenance == {"model": "made-up"}


TASKS = {("math", "solve"): 3, ("math", "answer"): 5, ("nonmath", "caption"): 4}
DEPTH, WIDTH = 4, 6


def pooled_states(folder: Path, tasks: dict[tuple[str, str], int]) -> list[np.ndarray]:
    """Store passes of each task, and native rows, in three files; return those [N, L, 2, d]."""
    rng = np.random.default_rng(0)
    states = {
        task: rng.normal(size=(n, DEPTH, 2, WIDTH)).astype(np.float16)
        for task, n in {("native", "native"): 6, **tasks}.items()
    }
    pooled = [
        {"sample_id": f"{task}-{i}", "domain": domain, "task": task, "layer": layer}
        | {"input": list(passes[i, layer, 0]), "output": list(passes[i, layer, 1])}
        for (domain, task), passes in states.items()
        for i in range(len(passes))
        for layer in range(DEPTH)
    ]
    sides = {side: pa.list_(pa.float16(), WIDTH) for side in ("input", "output")}
    folder.mkdir()
    for number in range(3):
        table = pa.Table.from_pylist(pooled[number::3])
        types = [sides.get(name, table.schema.field(name).type) for name in table.column_names]
        table = table.cast(pa.schema(list(zip(table.column_names, types, strict=True))))
        pq.write_table(table, folder / f"part-{number:05d}.parquet")
    return [states[task].astype(np.float64) for task in tasks]


def wide_cka(x: np.ndarray, y: np.ndarray) -> float:
    """By the definition: [d, d] matrices of centred columns."""
    x, y = x - x.mean(0), y - y.mean(0)
    between = np.linalg.norm(x.T @ y, "fro") ** 2
    return float(between / (np.linalg.norm(x.T @ x, "fro") * np.linalg.norm(y.T @ y, "fro")))


def test_pooled_scores_and_cka_are_of_the_tasks_mean_states(folder: Path, tmp_path: Path) -> None:
    states = pooled_states(tmp_path / "pooled", TASKS)
    table = score(folder, tmp_path / "pooled")
    values = by_key(table)
    means = np.stack([passes.mean(0) for passes in states])  # [T, L, 2, d]
    for layer in range(DEPTH):
        cosines = [x @ y / math.sqrt((x @ x) * (y @ y)) for x, y in means[:, layer]]
        assert values["pooled", layer, 1] == pytest.approx(sum(cosines) / len(TASKS), rel=1e-9)
    assert ("cka", 0, 1) not in values
    for layer in range(1, DEPTH):
        expected = wide_cka(means[:, layer - 1, 1], means[:, layer, 1])
        assert values["cka", layer, 1] == pytest.approx(expected, rel=1e-9)
    counts = {n for (name, *_), n in by_key(table, "n").items() if name in ("pooled", "cka")}
    assert counts == {3 + 5 + 4}


def test_pooled_states_of_calibration_rows_alone_give_no_score(
    folder: Path, tmp_path: Path
) -> None:
    pooled_states(tmp_path / "pooled", {})
    assert score(folder, tmp_path / "pooled").equals(score(folder))


@pytest.mark.parametrize("layers", [2, 0])  # the stage writes an empty table for other methods
def test_sensitivities_are_added_as_they_are(folder: Path, tmp_path: Path, layers: int) -> None:
    losses = [
        {"criterion": "sleb", "first": i, "span": 1, "value": float(i), "n": 8}
        for i in range(layers)
    ]
    added, table = pa.Table.from_pylist(losses, schema=SCHEMA), score(folder)
    pq.write_table(added, tmp_path / "losses.parquet")
    both = score(folder, sensitivity=tmp_path / "losses.parquet")
    assert both.schema.equals(table.schema, check_metadata=True)
    assert both.to_pylist() == [*table.to_pylist(), *added.to_pylist()]


def test_a_table_without_sensitivities_is_named(folder: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"criterion": ["sleb"]}), tmp_path / "losses.parquet")
    with pytest.raises(InputError, match=r"losses\.parquet: column 'first'"):
        score(folder, sensitivity=tmp_path / "losses.parquet")


def test_a_profile_has_a_column_for_each_span_of_calibration_rows(tmp_path: Path) -> None:
    frame = rows(2, layers=5, longest=4, domains=("native", "math"))
    table = score(stored(tmp_path / "s", frame))
    values, columns = by_key(table), profile(table)
    assert columns.column_names == ["first", "S_1", "S_2", "S_3"]
    assert columns["first"].to_pylist() == list(range(5))
    for row in columns.to_pylist():
        for span in (1, 2, 3):
            value = values.get(("cosine", row["first"], span))
            assert row[f"S_{span}"] == (None if value is None else cosine(value))


@pytest.mark.parametrize("column", ["domain", "first", "cosine_last"])
def test_rows_without_a_value_are_named(tmp_path: Path, column: str) -> None:
    frame = FRAME.astype({column: object})
    frame.loc[3, column] = None
    with pytest.raises(InputError, match=rf"part-\S+\.parquet: column '{column}' has rows without"):
        score(stored(tmp_path / "similarity", frame))
