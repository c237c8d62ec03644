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

from interlace.errors import ContractError, InputError
from interlace.scores import average
from interlace.scores.average import linear_cka, profile, score, task_means
from interlace.scores.table import SCHEMA, read_scores


def measurements(samples: int = 12, layers: int = 5, domain: str = "native") -> pd.DataFrame:
    rng = np.random.default_rng(samples)
    return pd.DataFrame(
        {
            "sample_id": f"{domain}-{i:02d}",
            "domain": domain,
            "first": first,
            "span": span,
            "cosine": np.float32(rng.uniform(0.5, 1)),
            "cosine_last": np.float32(rng.uniform(-1, 1)),
        }
        for i in range(samples)
        for span in (1, 2, 3)
        for first in range(layers - span + 1)
    )


def stored(folder: Path, frame: pd.DataFrame, parts: int = 1, **about: str) -> Path:
    schema = pa.schema(
        [
            ("sample_id", pa.string()),
            ("domain", pa.string()),
            ("first", pa.int32()),
            ("span", pa.int32()),
            ("cosine", pa.float32()),
            ("cosine_last", pa.float32()),
        ],
        metadata=about,
    )
    folder.mkdir()
    for number in range(parts):
        table = pa.Table.from_pandas(frame.iloc[number::parts], schema, preserve_index=False)
        pq.write_table(table.replace_schema_metadata(about), folder / f"part-{number:05d}.parquet")
    return folder


def by_key(table: pa.Table, column: str) -> dict[tuple[str, int, int], Any]:
    return {(r["criterion"], r["first"], r["span"]): r[column] for r in table.to_pylist()}


def test_a_score_is_the_mean_over_samples(tmp_path: Path) -> None:
    frame = measurements()
    found = by_key(score(stored(tmp_path / "s", frame)), "value")
    for (first, span), group in frame.groupby(["first", "span"]):
        mean = group["cosine"].astype(float).mean()
        assert found["cosine", first, span] == pytest.approx(mean, rel=1e-12)


def test_every_measured_span_has_one_score(tmp_path: Path) -> None:
    table = score(stored(tmp_path / "s", measurements(layers=5)))
    for criterion in ("cosine", "angular"):
        found = [row for row in table.to_pylist() if row["criterion"] == criterion]
        assert len(found) == 5 + 4 + 3
        assert {row["n"] for row in found} == {12}


def test_the_standard_error_is_that_of_the_mean(tmp_path: Path) -> None:
    frame = measurements()
    found = by_key(score(stored(tmp_path / "s", frame)), "standard_error")
    for (first, span), group in frame.groupby(["first", "span"]):
        expected = group["cosine"].astype(float).sem()
        assert found["cosine", first, span] == pytest.approx(expected, rel=1e-9)


def test_one_sample_has_no_standard_error(tmp_path: Path) -> None:
    table = score(stored(tmp_path / "s", measurements(samples=1)))
    assert set(table["standard_error"].to_pylist()) == {None}


def test_domains_are_criteria_of_their_own(tmp_path: Path) -> None:
    native, math_rows = measurements(4), measurements(5, domain="math")
    table = score(stored(tmp_path / "s", pd.concat([native, math_rows])))
    found = by_key(table, "value")
    for criterion, frame in (("cosine", native), ("cosine/math", math_rows)):
        mean = frame.query("first == 1 and span == 2")["cosine"].astype(float).mean()
        assert found[criterion, 1, 2] == pytest.approx(mean)


def test_native_scores_do_not_depend_on_probes(tmp_path: Path) -> None:
    native, probes = measurements(4), measurements(5, domain="nonmath")
    alone = score(stored(tmp_path / "alone", native)).to_pylist()
    together = score(stored(tmp_path / "both", pd.concat([native, probes]))).to_pylist()
    assert [row for row in together if row["criterion"] != "cosine/nonmath"] == alone
    assert {row["criterion"] for row in alone} == {"cosine", "angular"}


def test_an_angle_is_the_mean_over_samples_of_that_of_the_last_token(tmp_path: Path) -> None:
    frame = measurements()
    table = score(stored(tmp_path / "s", frame))
    values, errors = by_key(table, "value"), by_key(table, "standard_error")
    for (first, span), group in frame.groupby(["first", "span"]):
        angles = pd.Series([math.acos(c) / math.pi for c in group["cosine_last"].astype(float)])
        assert values["angular", first, span] == pytest.approx(angles.mean(), abs=1e-9)
        assert errors["angular", first, span] == pytest.approx(angles.sem(), rel=1e-6)


def test_a_cosine_that_rounding_took_past_one_is_an_angle_of_zero(tmp_path: Path) -> None:
    frame = measurements().assign(cosine_last=np.nextafter(np.float32(1), np.float32(2)))
    values = by_key(score(stored(tmp_path / "s", frame)), "value")
    assert {value for (criterion, *_), value in values.items() if criterion == "angular"} == {0.0}


def test_close_cosines_keep_an_exact_standard_error(tmp_path: Path) -> None:
    spread = np.random.default_rng(0).normal(size=len(measurements()))
    frame = measurements().assign(cosine=np.float32(0.9999 + 1e-6 * spread))
    found = by_key(score(stored(tmp_path / "s", frame)), "standard_error")
    for (first, span), group in frame.groupby(["first", "span"]):
        expected = group["cosine"].astype(float).sem()
        assert found["cosine", first, span] == pytest.approx(expected, rel=1e-6)


def test_a_cosine_that_is_not_finite_names_the_file(tmp_path: Path) -> None:
    frame = measurements().assign(cosine_last=np.float32(math.nan))
    with pytest.raises(ContractError, match=r"part-00000\.parquet: a cosine is not finite"):
        score(stored(tmp_path / "s", frame))


def test_a_missing_measurement_names_the_file_and_the_column(tmp_path: Path) -> None:
    folder = stored(tmp_path / "s", measurements())
    path = folder / "part-00000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["cosine_last"]), path)
    with pytest.raises(InputError, match=r"part-00000\.parquet: column 'cosine_last' is missing"):
        score(folder)


def test_a_folder_without_measurements_says_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no measurements; run `dvc repro collect`"):
        score(tmp_path)


def test_scores_do_not_depend_on_how_measurements_lie_in_files(tmp_path: Path) -> None:
    frame = measurements()
    shuffled = frame.sample(frac=1, random_state=0)
    one, many = stored(tmp_path / "one", frame), stored(tmp_path / "many", shuffled, parts=4)
    assert score(one).equals(score(many))


TASKS = {("math", "solve"): 3, ("math", "answer"): 5, ("nonmath", "caption"): 4}
DEPTH, WIDTH = 4, 6


def pooled_states(folder: Path, parts: int = 1) -> dict[tuple[str, str], np.ndarray]:
    """Store passes of each task, and native rows; returns the probes' states [N, L, 2, d]."""
    rng = np.random.default_rng(0)
    states = {
        task: rng.normal(size=(n, DEPTH, 2, WIDTH)).astype(np.float16)
        for task, n in {("native", "native"): 6, **TASKS}.items()
    }
    rows = [
        {"sample_id": f"{task}-{i}", "domain": domain, "task": task, "layer": layer}
        | {"input": list(passes[i, layer, 0]), "output": list(passes[i, layer, 1])}
        for (domain, task), passes in states.items()
        for i in range(len(passes))
        for layer in range(DEPTH)
    ]
    names = ("sample_id", "domain", "task")
    schema = pa.schema(
        [(name, pa.string()) for name in names]
        + [("layer", pa.int32())]
        + [(side, pa.list_(pa.float16(), WIDTH)) for side in ("input", "output")]
    )
    folder.mkdir()
    for number in range(parts):
        table = pa.Table.from_pylist(rows[number::parts], schema)
        pq.write_table(table, folder / f"part-{number:05d}.parquet")
    return {task: states[task].astype(np.float64) for task in TASKS}


def test_the_pooled_score_is_the_mean_over_tasks_of_their_mean_states_cosine(
    tmp_path: Path,
) -> None:
    states = pooled_states(tmp_path / "pooled")
    table = score(stored(tmp_path / "s", measurements()), tmp_path / "pooled")
    found = by_key(table, "value")
    for layer in range(DEPTH):
        cosines = []
        for passes in states.values():
            before, after = (passes[:, layer, side].mean(0) for side in (0, 1))
            norms = math.sqrt(before @ before) * math.sqrt(after @ after)
            cosines.append(before @ after / norms)
        assert found["pooled", layer, 1] == pytest.approx(sum(cosines) / len(cosines), rel=1e-9)


def test_cka_compares_a_layer_s_output_with_that_of_the_layer_before(tmp_path: Path) -> None:
    states = pooled_states(tmp_path / "pooled")
    table = score(stored(tmp_path / "s", measurements()), tmp_path / "pooled")
    found = by_key(table, "value")
    outputs = np.stack([passes[:, :, 1].mean(0) for passes in states.values()])  # [T, L, d]
    for layer in range(1, DEPTH):
        expected = wide_cka(outputs[:, layer - 1], outputs[:, layer])
        assert found["cka", layer, 1] == pytest.approx(expected, rel=1e-9)
    assert ("cka", 0, 1) not in found


def wide_cka(x: np.ndarray, y: np.ndarray) -> float:
    """By the definition: [d, d] matrices of centred columns."""
    x, y = x - x.mean(0), y - y.mean(0)
    between = np.linalg.norm(x.T @ y, "fro") ** 2
    return float(between / (np.linalg.norm(x.T @ x, "fro") * np.linalg.norm(y.T @ y, "fro")))


@pytest.mark.parametrize("shape", [(2, 5), (9, 40), (9, 3)])
def test_cka_through_gram_matrices_is_that_of_the_wide_ones(shape: tuple[int, int]) -> None:
    x, y = np.random.default_rng(1).normal(loc=3.0, size=(2, *shape))
    assert linear_cka(x, y) == pytest.approx(wide_cka(x, y), rel=1e-9)


def test_cka_does_not_see_rotation_scale_or_offset() -> None:
    x = np.random.default_rng(2).normal(size=(9, 6))
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0]
    assert linear_cka(x, 7 * x @ turn + 5) == pytest.approx(1.0, rel=1e-9)


def test_scores_of_pooled_states_count_the_probes_passes(tmp_path: Path) -> None:
    pooled_states(tmp_path / "pooled")
    table = score(stored(tmp_path / "s", measurements()), tmp_path / "pooled")
    counted = {r["n"] for r in table.to_pylist() if r["criterion"] in ("pooled", "cka")}
    assert counted == {3 + 5 + 4}


def test_pooled_states_are_read_alike_from_many_files(tmp_path: Path) -> None:
    for parts in (1, 3):
        pooled_states(tmp_path / f"pooled-{parts}", parts)
    one, many = (task_means(tmp_path / f"pooled-{parts}") for parts in (1, 3))
    assert one[0] == many[0] and one[2] == many[2]
    np.testing.assert_allclose(one[1], many[1], rtol=1e-12)


def test_pooled_states_are_read_a_little_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pooled_states(tmp_path / "pooled")
    seen: list[int] = []
    read = average.measurement_batches

    def batches(path: Path, columns: list[str], rows: int) -> Any:
        for batch in read(path, columns, min(rows, 10)):
            seen.append(batch.num_rows)
            yield batch

    expected = task_means(tmp_path / "pooled")[1]
    monkeypatch.setattr(average, "measurement_batches", batches)
    np.testing.assert_allclose(task_means(tmp_path / "pooled")[1], expected, rtol=1e-12)
    assert len(seen) > 1 and max(seen) <= 10


def test_pooled_states_of_calibration_rows_alone_give_no_score(tmp_path: Path) -> None:
    pooled_states(tmp_path / "pooled")
    path = tmp_path / "pooled/part-00000.parquet"
    table = pq.read_table(path)
    native = table.filter(pa.compute.equal(table["domain"], "native"))
    pq.write_table(native, path)
    table = score(stored(tmp_path / "s", measurements()), tmp_path / "pooled")
    assert {row["criterion"] for row in table.to_pylist()} == {"cosine", "angular"}


def sensitivity_file(folder: Path, **changes: Any) -> Path:
    rows = [
        {"criterion": "sleb", "first": i, "span": 1, "value": float(i), "n": 8} for i in range(3)
    ]
    table = pa.Table.from_pylist([row | changes for row in rows], schema=SCHEMA)
    pq.write_table(table, folder / "sensitivity.parquet")
    return folder / "sensitivity.parquet"


def test_sensitivities_are_taken_over_as_they_are(tmp_path: Path) -> None:
    folder = stored(tmp_path / "s", measurements(), n_layers="5")
    table = score(folder, sensitivity=sensitivity_file(tmp_path))
    assert table.schema.equals(score(folder).schema, check_metadata=True)
    added = [row for row in table.to_pylist() if row["criterion"] == "sleb"]
    assert added == pq.read_table(tmp_path / "sensitivity.parquet").to_pylist()
    assert table.slice(0, table.num_rows - 3).equals(score(folder))


def test_an_empty_table_of_sensitivities_adds_nothing(tmp_path: Path) -> None:
    folder = stored(tmp_path / "s", measurements())
    pq.write_table(SCHEMA.empty_table(), tmp_path / "none.parquet")
    assert score(folder, sensitivity=tmp_path / "none.parquet").equals(score(folder))


def test_a_table_that_holds_no_sensitivities_is_refused(tmp_path: Path) -> None:
    folder = stored(tmp_path / "s", measurements())
    pq.write_table(pa.table({"criterion": ["sleb"]}), tmp_path / "bad.parquet")
    with pytest.raises(InputError, match=r"bad\.parquet: column 'first' is missing"):
        score(folder, sensitivity=tmp_path / "bad.parquet")


def test_a_missing_table_of_sensitivities_says_what_makes_it(tmp_path: Path) -> None:
    folder = stored(tmp_path / "s", measurements())
    with pytest.raises(InputError, match=r"gone\.parquet: no such file; .*repro sensitivity"):
        score(folder, sensitivity=tmp_path / "gone.parquet")


def test_a_profile_has_a_column_for_each_span(tmp_path: Path) -> None:
    table = score(stored(tmp_path / "s", measurements(layers=5)))
    values = by_key(table, "value")
    found = profile(table)
    assert found.column_names == ["first", "S_1", "S_2", "S_3"]
    assert found["first"].to_pylist() == list(range(5))
    for row in found.to_pylist():
        for span in (1, 2, 3):
            assert row[f"S_{span}"] == values.get(("cosine", row["first"], span))


def test_the_table_says_what_was_measured(tmp_path: Path) -> None:
    folder = stored(tmp_path / "s", measurements(), n_layers="5", deepstack_layers="3", model="m")
    scores = read_scores(score(folder))
    assert (scores.n_layers, scores.deepstack_layers) == (5, 3)
    assert scores.provenance == {"model": "m"}


def test_a_last_layer_without_score_still_counts(tmp_path: Path) -> None:
    folder = stored(tmp_path / "s", measurements(layers=5), n_layers="6")
    assert read_scores(score(folder)).n_layers == 6


def test_without_metadata_the_decoder_ends_where_the_last_span_does(tmp_path: Path) -> None:
    assert read_scores(score(stored(tmp_path / "s", measurements(layers=7)))).n_layers == 7
