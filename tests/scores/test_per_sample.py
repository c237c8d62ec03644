"""Per-sample similarities are one matrix for each criterion, however the rows are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from similarity_rows import rows, stored

from interlace.errors import ContractError
from interlace.scores.average import score
from interlace.scores.per_sample import read_sample_cosines
from interlace.scores.table import read_scores

FRAME = rows(samples=5, layers=8, longest=6, domains=("native", "math", "nonmath"))


def test_a_row_is_a_sample_and_a_column_a_short_span(tmp_path: Path) -> None:
    cosines = read_sample_cosines(stored(tmp_path / "s", FRAME))
    assert list(cosines) == ["cosine", "cosine/math", "cosine/nonmath"]
    assert [samples.tasks for samples in cosines.values()] == [(5,), (5, 5), (5,)]
    native = cosines["cosine"]
    assert native.spans == tuple((f, s) for s in (1, 2, 3) for f in range(8 - s + 1))
    values = FRAME.set_index(["sample_id", "first", "span"])["cosine"]
    for row in range(5):
        for column, (first, span) in enumerate(native.spans):
            expected = values[f"native-native-{row:04d}", first, span]
            assert native.cosines[row, column] == np.float32(expected)


@pytest.mark.parametrize("parts", [2, 7])
def test_files_make_no_difference_and_means_are_the_scores_to_the_last_bit(
    parts: int, tmp_path: Path
) -> None:
    frame = FRAME.assign(cosine=FRAME["cosine"] / 1000)  # finer than the unit of the sums
    one = stored(tmp_path / "one", frame)
    many = stored(tmp_path / "many", frame.sample(frac=1, random_state=0), parts)
    values, cosines = read_scores(score(one)).values, read_sample_cosines(many)
    for criterion, samples in read_sample_cosines(one).items():
        assert samples.spans == cosines[criterion].spans
        assert np.array_equal(samples.cosines, cosines[criterion].cosines)
        means = samples.cosines.sum(axis=0) / len(samples.cosines)
        expected = [values[criterion, first, span] for first, span in samples.spans]
        assert means.tolist() == expected


def test_a_sample_that_lacks_a_short_span_is_named(tmp_path: Path) -> None:
    sample = FRAME["sample_id"] == "native-native-0003"
    long, short = sample & (FRAME["span"] == 4), sample & (FRAME["first"] == 2)
    assert read_sample_cosines(stored(tmp_path / "s", FRAME[~long]))
    with pytest.raises(ContractError, match="sample native-native-0003 has other spans"):
        read_sample_cosines(stored(tmp_path / "t", FRAME[~short]))
