"""Layers that make or end a massive activation, by the table of scores and sample by sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from similarity_rows import rows, stored

from interlace.errors import ContractError, InputError
from interlace.measurements.tables import SINKS as COLUMNS
from interlace.scores.average import score
from interlace.scores.sinks import (
    FALL,
    MASSIVE,
    RISE,
    SHARE,
    SinkLayers,
    sink_ends,
    sink_layers,
    sink_starts,
)
from interlace.scores.table import SINK_END, SINK_START, SINKS, Scores, read_scores

LAYERS, SAMPLES = 5, 12


def shares(start: dict[int, float], end: dict[int, float], layers: int = LAYERS) -> Scores:
    """A table of scores by the shares of samples, 0 for layers that are not named."""
    values = {
        (name, layer, 1): by_layer.get(layer, 0.0)
        for name, by_layer in ((SINK_START, start), (SINK_END, end))
        for layer in range(layers)
    }
    return Scores(layers, 0, values, {})


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ({}, {}, SinkLayers()),
        ({2: 1}, {}, SinkLayers((2,))),
        ({2: SHARE}, {4: SHARE}, SinkLayers((2,), (4,))),
        ({2: SHARE - 0.01}, {4: 1}, SinkLayers()),  # too few samples; nothing was made
        ({1: 1, 3: 0.5}, {0: 1, 1: 1, 2: 1, 4: 0.01}, SinkLayers((1, 3), (2,))),
    ],
)
def test_layers_count_from_a_tenth_of_the_samples_and_end_what_was_made(
    start: dict[int, float], end: dict[int, float], expected: SinkLayers
) -> None:
    assert sink_layers(shares(start, end)) == expected


def test_all_sink_layers_are_listed_once_in_order() -> None:
    assert SinkLayers((4, 1), (7, 4)).layers == [1, 4, 7]


def test_a_table_without_measurements_of_sinks_knows_none() -> None:
    assert sink_layers(Scores(3, 0, {("cosine", 0, 1): 0.5}, {})) is None


@pytest.mark.parametrize(
    ("median", "token", "expected"),
    [
        ((1, 1), (1, MASSIVE), True),
        ((1, 1), (1, MASSIVE - 0.01), False),
        ((1, 1), (MASSIVE / RISE, MASSIVE), True),
        ((1, 1), (MASSIVE / RISE + 0.01, MASSIVE), False),  # grew too little
        ((100, 1), (MASSIVE, MASSIVE), False),  # the others shrank
        ((1, 10), (MASSIVE, 10 * MASSIVE), False),  # all grew alike
        ((1, 100), (1, 100), False),
    ],
)
def test_a_layer_starts_a_sink_where_a_norm_jumps_far_above_the_median(
    median: tuple[float, float], token: tuple[float, float], expected: bool
) -> None:
    assert sink_starts(*pairs(median, token)).tolist() == [expected]


@pytest.mark.parametrize(
    ("median", "token", "expected"),
    [
        ((1, 1), (MASSIVE, MASSIVE / FALL), True),
        ((1, 1), (MASSIVE, MASSIVE / FALL + 0.01), False),
        ((1, 1), (MASSIVE - 0.01, 0), False),
        ((1, 100), (MASSIVE, MASSIVE), False),  # the others grew
    ],
)
def test_a_layer_ends_a_sink_where_a_massive_norm_falls(
    median: tuple[float, float], token: tuple[float, float], expected: bool
) -> None:
    assert sink_ends(*pairs(median, token)).tolist() == [expected]


def pairs(*sides: tuple[float, float]) -> Any:
    return [tuple(np.array([float(value)]) for value in side) for side in sides]


def frame(domain: str = "native") -> pd.DataFrame:
    """Statistics of samples; layer 2 makes the largest token massive in a third of them."""
    rng = np.random.default_rng(0)
    keys = [(f"{domain}-{n:02d}", layer) for n in range(SAMPLES) for layer in range(LAYERS)]
    table = pd.DataFrame(keys, columns=["sample_id", "layer"])
    norms = rng.uniform(1, 2, (len(table), 6))
    cosines = rng.uniform(0.5, 1, (len(table), 2))
    table[["median_in", "first_in", "largest_in"]] = norms[:, :3]
    table[["median_out", "first_out", "largest_out"]] = norms[:, 3:]
    table[["first_cosine", "largest_cosine"]] = cosines
    third = table["sample_id"].str[-2:].astype(int) % 3 == 0
    table.loc[third & (table["layer"] == 2), "largest_out"] = 3e6
    table.loc[third & (table["layer"] > 2), ["largest_in", "largest_out"]] = 3e6
    return table.assign(domain=domain, task="native", source="s", largest_position=0)[COLUMNS.names]


def written(folder: Path, table: pd.DataFrame, parts: int = 1) -> Path:
    folder.mkdir()
    for number in range(parts):
        part = pa.Table.from_pandas(table.iloc[number::parts], COLUMNS, preserve_index=False)
        pq.write_table(part, folder / f"part-{number:05d}.parquet")
    return folder


@pytest.fixture
def similarity(tmp_path: Path) -> Path:
    return stored(tmp_path / "similarity", rows(SAMPLES, layers=LAYERS, longest=3))


def test_criteria_are_means_over_calibration_samples(similarity: Path, tmp_path: Path) -> None:
    table = frame().astype(dict.fromkeys(COLUMNS.names[5:-1], np.float32))
    both = pd.concat([frame(), frame("math")])
    scores = score(similarity, sinks=written(tmp_path / "sinks", both)).to_pandas()
    third = table["sample_id"].str[-2:].astype(int) % 3 == 0
    expected = {
        "first/cosine": table["first_cosine"],
        "first/growth": np.log10(table["first_out"] / table["first_in"]),
        "largest/cosine": table["largest_cosine"],
        "largest/growth": np.log10(table["largest_out"] / table["largest_in"]),
        "largest/norm": np.log10(table["largest_out"] / table["median_out"]),
        "sink/start": (third & (table["layer"] == 2)).astype(float),
        "sink/end": 0.0 * table["layer"],
    }
    assert set(expected) == set(SINKS)
    for name, values in expected.items():
        groups = values.groupby(table["layer"])
        rows_of_it = scores[scores["criterion"] == name].sort_values("first")
        assert rows_of_it[["first", "span", "n"]].to_numpy().tolist() == [
            [layer, 1, SAMPLES] for layer in range(LAYERS)
        ]
        np.testing.assert_allclose(rows_of_it["value"], groups.mean(), atol=1e-6)
        np.testing.assert_allclose(rows_of_it["standard_error"], groups.sem(), atol=1e-6)


def test_a_sink_in_some_samples_is_found_in_the_scores(similarity: Path, tmp_path: Path) -> None:
    table = score(similarity, sinks=written(tmp_path / "sinks", frame()))
    assert sink_layers(read_scores(table)) == SinkLayers((2,))


def test_scores_do_not_depend_on_how_statistics_lie_in_files(
    similarity: Path, tmp_path: Path
) -> None:
    one, many = (written(tmp_path / f"{n}", frame(), n) for n in (1, 4))
    assert score(similarity, sinks=one).equals(score(similarity, sinks=many))


def test_a_norm_of_zero_grows_by_a_finite_factor(similarity: Path, tmp_path: Path) -> None:
    table = frame().assign(first_in=0.0, median_in=0.0, median_out=0.0)
    scores = score(similarity, sinks=written(tmp_path / "sinks", table))
    assert read_scores(scores).of_span(1, "first/growth")[0] == pytest.approx(6.2, abs=0.2)


def test_a_statistic_that_is_not_finite_is_refused(similarity: Path, tmp_path: Path) -> None:
    table = frame()
    table.loc[7, "largest_out"] = np.inf
    with pytest.raises(ContractError, match=r"a norm or cosine is not finite; measure again"):
        score(similarity, sinks=written(tmp_path / "sinks", table))


def test_a_folder_without_statistics_is_refused(similarity: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sinks: no measurements"):
        score(similarity, sinks=tmp_path / "sinks")
