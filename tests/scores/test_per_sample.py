"""Per-sample similarities are one matrix for each criterion, however the rows are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from similarity_rows import rows, stored

from interlace.errors import ContractError, InputError
from interlace.scores.average import score
from interlace.scores.per_sample import read_sample_cosines
from interlace.scores.table import read_scores

EVERY = ("native", "math", "nonmath")


def test_a_row_is_a_sample_and_a_column_a_span(tmp_path: Path) -> None:
    frame = rows(samples=3)
    found = read_sample_cosines(stored(tmp_path / "s", frame))["cosine"]
    for row, sample in enumerate(sorted(set(frame["sample_id"]))):
        for column, (first, span) in enumerate(found.spans):
            chosen = (frame["sample_id"] == sample) & (frame["first"] == first)
            (value,) = frame[chosen & (frame["span"] == span)]["cosine"]
            assert found.cosines[row, column] == np.float32(value)


def test_only_short_spans_are_read(tmp_path: Path) -> None:
    found = read_sample_cosines(stored(tmp_path / "s", rows(layers=8, longest=6)))["cosine"]
    assert found.spans == tuple((f, s) for s in (1, 2, 3) for f in range(8 - s + 1))


def test_domains_are_criteria(tmp_path: Path) -> None:
    found = read_sample_cosines(stored(tmp_path / "s", rows(samples=5, domains=EVERY)))
    assert list(found) == ["cosine", "cosine/math", "cosine/nonmath"]
    assert [one.tasks for one in found.values()] == [(5,), (5, 5), (5,)]


@pytest.mark.parametrize("parts", [2, 7])
def test_files_make_no_difference(parts: int, tmp_path: Path) -> None:
    frame = rows(domains=EVERY)
    one = read_sample_cosines(stored(tmp_path / "one", frame))
    many = read_sample_cosines(
        stored(tmp_path / "many", frame.sample(frac=1, random_state=0), parts)
    )
    for criterion in one:
        assert one[criterion].spans == many[criterion].spans
        assert np.array_equal(one[criterion].cosines, many[criterion].cosines)


def test_their_means_are_the_scores_to_the_last_bit(tmp_path: Path) -> None:
    folder = stored(tmp_path / "s", rows(samples=7, domains=EVERY))
    values = read_scores(score(folder)).values
    for criterion, found in read_sample_cosines(folder).items():
        for (first, span), mean in zip(
            found.spans, found.cosines.sum(axis=0) / len(found.cosines), strict=True
        ):
            assert mean == values[criterion, first, span]


def test_a_sample_that_lacks_a_span_stops_the_reading(tmp_path: Path) -> None:
    frame = rows()
    folder = stored(tmp_path / "s", frame.iloc[:-1])
    assert frame.iloc[-1]["span"] > 3 and read_sample_cosines(folder)  # a long span is not read
    lacking = frame[~((frame["sample_id"] == "native-native-0003") & (frame["first"] == 2))]
    with pytest.raises(ContractError, match="sample native-native-0003 has other spans"):
        read_sample_cosines(stored(tmp_path / "t", lacking))


def test_no_files_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no measurements; run `dvc repro collect`"):
        read_sample_cosines(tmp_path)
    (part,) = stored(tmp_path / "s", rows()).iterdir()
    pq.write_table(pq.read_table(part).drop_columns(["task"]), part)
    with pytest.raises(InputError, match="column 'task' is missing"):
        read_sample_cosines(part.parent)
