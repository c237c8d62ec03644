"""Scores are means over samples, and a table that is none is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interlace.errors import InputError
from interlace.scores import read_scores, score


def measurements(samples: int = 12, layers: int = 5, domain: str = "native") -> pd.DataFrame:
    rng = np.random.default_rng(samples)
    return pd.DataFrame(
        {
            "sample_id": f"{domain}-{i:02d}",
            "domain": domain,
            "first": first,
            "span": span,
            "cosine": np.float32(rng.uniform(0.5, 1)),
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
    assert table.num_rows == 5 + 4 + 3
    assert set(table["n"].to_pylist()) == {12}


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


def test_scores_do_not_depend_on_how_measurements_lie_in_files(tmp_path: Path) -> None:
    frame = measurements()
    shuffled = frame.sample(frac=1, random_state=0)
    one, many = stored(tmp_path / "one", frame), stored(tmp_path / "many", shuffled, parts=4)
    assert score(one).equals(score(many))


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


def some_rows() -> list[dict[str, Any]]:
    return [
        {"criterion": "cosine", "first": first, "span": 1, "value": 0.5 + first / 10}
        for first in range(4)
    ]


def refusal(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "scores.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(InputError) as caught:
        read_scores(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize("column", ["criterion", "first", "span", "value"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    rows = [{k: v for k, v in row.items() if k != column} for row in some_rows()]
    assert f"column '{column}' is missing" in refusal(tmp_path, rows)


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_value_that_is_no_number_is_named_with_its_row(tmp_path: Path, value: Any) -> None:
    rows = some_rows()
    rows[2]["value"] = value
    assert "row 2: value" in refusal(tmp_path, rows)


def test_a_repeated_score_is_named_with_its_row(tmp_path: Path) -> None:
    rows = [*some_rows(), some_rows()[1]]
    assert "row 4: ('cosine', 1, 1) appears twice" in refusal(tmp_path, rows)


def test_an_empty_table_is_refused() -> None:
    empty = pa.Table.from_pylist(some_rows()).slice(0, 0)
    with pytest.raises(InputError, match="holds no scores"):
        read_scores(empty)


def test_a_missing_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; run `dvc repro score`"):
        read_scores(tmp_path / "scores.parquet")


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scores.parquet").write_text("hello")
    with pytest.raises(InputError, match="not a Parquet file"):
        read_scores(tmp_path / "scores.parquet")


def test_asking_for_a_span_that_was_not_measured_is_refused() -> None:
    scores = read_scores(pa.Table.from_pylist(some_rows()))
    with pytest.raises(InputError, match="no cosine of 3"):
        scores.of_span(3)
