"""The measurements open in pandas and DuckDB as they are, and the document's queries are true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from similarity_rows import rows, stored

from interlace.measurements.tables import LEFT_OUT, SIMILARITY
from interlace.scores.resample import REPLICATES
from interlace.scores.table import SCHEMA
from interlace.selection.calibration import SIZES

TEXT = (Path(__file__).parents[2] / "docs/measurements.md").read_text(encoding="utf-8")
SQL = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)
PANDAS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
QUERIES = range(3)


@pytest.fixture(autouse=True)
def measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The native, math and nonmath rows of a run, in a folder where a reader would type."""
    frame = rows(samples=9, layers=14, longest=3, domains=("native", "math", "nonmath"))
    stored(tmp_path / "artifacts/hidden_states/similarity", frame, parts=2)
    monkeypatch.chdir(tmp_path)
    return frame[frame["span"] == 1]


def by_pandas(query: int) -> pd.DataFrame:
    names: dict[str, Any] = {}
    exec(PANDAS[query], names)
    answer: pd.DataFrame = names["answer"]
    return answer.reset_index(drop=True).rename_axis(columns=None)


def mean(frame: pd.DataFrame, column: str = "cosine", **values: Any) -> float:
    for name, value in values.items():
        frame = frame[frame[name] == value]
    return float(frame[column].mean())


def test_duckdb_and_pandas_answer_alike_with_the_printed_columns() -> None:
    assert len(SQL) == len(PANDAS) == len(QUERIES)
    for query in QUERIES:
        answer = by_pandas(query)
        pd.testing.assert_frame_equal(
            answer, duckdb.sql(SQL[query]).df(), check_dtype=False, check_exact=False, rtol=1e-6
        )
        header = TEXT.split("```python")[query + 1].split("```")[1].strip().splitlines()[0]
        assert [cell.strip() for cell in header.strip("|").split("|")] == list(answer)


def test_the_first_query_is_of_the_sources_of_layer_12(measurements: pd.DataFrame) -> None:
    answer = by_pandas(0)
    assert answer["S_1"].is_monotonic_increasing and set(answer["samples"]) == {4, 5}
    for source, value in zip(answer["source"], answer["S_1"], strict=True):
        layer = {"domain": "native", "first": 12, "source": source}
        assert value == pytest.approx(mean(measurements, **layer))


def test_the_second_query_is_of_ranks_furthest_apart(measurements: pd.DataFrame) -> None:
    answer = by_pandas(1)
    distances = (answer["vision_rank"] - answer["text_rank"]).abs()
    assert distances.is_monotonic_decreasing and distances[0] > 0
    with_images = measurements[measurements["n_vision_tokens"] > 0]
    for row in answer.itertuples():
        layer = {"domain": "native", "first": row.layer}
        assert row.vision == pytest.approx(mean(with_images, "cosine_vision", **layer))
        assert row.text == pytest.approx(mean(with_images, "cosine_text", **layer))


def test_the_third_query_is_of_the_layers_that_differ_most(measurements: pd.DataFrame) -> None:
    answer = by_pandas(2)
    for row in answer.itertuples():
        for domain in ("math", "nonmath"):
            expected = mean(measurements, domain=domain, first=row.layer)
            assert getattr(row, domain) == pytest.approx(expected)
    assert (answer["math"] - answer["nonmath"]).abs().is_monotonic_decreasing


def described(heading: str) -> list[str]:
    """The columns that the table under a heading names, in order."""
    section = TEXT.split(f"## `{heading}`\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\|([^|]+)", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


@pytest.mark.parametrize(
    ("heading", "schema"),
    [
        ("artifacts/hidden_states/similarity/", SIMILARITY),
        ("artifacts/hidden_states/left_out.parquet", LEFT_OUT),
        ("artifacts/scores.parquet", SCHEMA),
        ("artifacts/replicates.parquet", REPLICATES),
        ("metrics/calibration_size.csv", SIZES),
    ],
)
def test_every_column_is_described(heading: str, schema: pa.Schema) -> None:
    assert sorted(described(heading)) == sorted(schema.names)
