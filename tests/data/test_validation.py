"""Rows that judge candidates calibrate nothing, and no candidate is healed on them."""

from __future__ import annotations

from pathlib import Path

import answered_samples
import models
import pytest

from interlace.data.validation import split_training
from interlace.errors import InputError
from interlace.samples.rows import iterate


def ids(folder: Path) -> list[str]:
    return [row["sample_id"] for row in iterate(folder)]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, of_set = tmp_path_factory.mktemp("rows"), models.rows(24)
    train = answered_samples.calibration(folder / "train", of_set)
    return train, answered_samples.calibration(folder / "calibration", of_set[3:15])


def split(
    rows: tuple[Path, Path], out: Path, seed: int = 0, judging: int = 4, healed: int = 10
) -> tuple[list[str], list[str]]:
    folders = out / f"healing-{seed}", out / f"validation-{seed}"
    split_training(*rows, *folders, seed=seed, judging=judging, healed=healed)
    return ids(folders[0]), ids(folders[1])


def test_the_three_sets_share_no_row_but_healing_and_calibration(
    rows: tuple[Path, Path], tmp_path: Path
) -> None:
    healing, validation = split(rows, tmp_path)
    assert (len(healing), len(validation)) == (10, 4)
    assert not {*validation} & {*healing, *ids(rows[1])}
    assert {*healing, *validation} < {*ids(rows[0])}
    assert healing == [i for i in ids(rows[0]) if i in healing]  # in the order of the training set


def test_the_seed_draws_them(rows: tuple[Path, Path], tmp_path: Path) -> None:
    first = split(rows, tmp_path)
    assert split(rows, tmp_path / "again") == first
    assert split(rows, tmp_path, seed=1)[1] != first[1]


def test_a_longer_healing_keeps_the_rows_that_judge(
    rows: tuple[Path, Path], tmp_path: Path
) -> None:
    short, long = (split(rows, tmp_path / str(n), healed=n) for n in (5, 50))
    assert short[1] == long[1] and {*short[0]} < {*long[0]} and len(long[0]) == 20


def test_at_most_a_quarter_judges(rows: tuple[Path, Path], tmp_path: Path) -> None:
    assert len(split(rows, tmp_path, judging=100)[1]) == 6


def test_a_set_that_calibrates_whole_is_refused(rows: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no row can judge .* lower data\.calibration_fraction"):
        split((rows[0], rows[0]), tmp_path)
