"""The candidate of the lowest loss after healing is chosen, and the table says by how much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from plans import make_plan

from interlace.errors import MissingInputError
from interlace.plan.candidates import (
    Losses,
    candidate_table,
    choice_line,
    read_candidates,
    read_chosen,
    write_candidates,
)

PLANS = [make_plan([3, 5], [2, 4]), make_plan([2, 5], [3, 4]), make_plan([2, 3], [1, 4])]
TOKENS = (4, 2, 2)
LOSSES = [
    Losses(tokens=TOKENS, before=(4.0, 2.0, 2.0), after=(3.0, 2.0, 1.0)),
    Losses(tokens=TOKENS, before=(8.0, 4.0, 4.0), after=(2.0, 1.0, 1.0)),
    Losses(tokens=TOKENS, before=(9.0, 4.0, 4.0), after=(2.0, 1.0, 1.0)),
]


def test_the_lowest_loss_after_healing_is_chosen_and_of_equal_ones_the_first() -> None:
    table = candidate_table(PLANS, LOSSES)
    assert table["chosen"].to_pylist() == [False, True, False]
    assert table["loss_before"].to_pylist() == [1.0, 2.0, 17 / 8]
    assert table["loss_after"].to_pylist() == [0.75, 0.5, 0.5]
    assert table["drop"].to_pylist() == ["3 5", "2 5", "2 3"]


def test_errors_are_of_the_paired_difference_from_the_chosen_plan() -> None:
    errors = candidate_table(PLANS, LOSSES)["error"].to_pylist()
    differences, tokens = np.array([1.0, 1.0, 0.0]), np.array(TOKENS)
    residuals = differences - differences.sum() / tokens.sum() * tokens
    expected = np.sqrt(3 / 2 * (residuals**2).sum()) / tokens.sum()
    assert errors == pytest.approx([expected, 0.0, 0.0])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    table = write_candidates(tmp_path / "candidates", PLANS, LOSSES)
    assert read_candidates(tmp_path / "candidates").equals(table)
    chosen = read_chosen(tmp_path / "candidates")
    assert chosen == PLANS[1].model_copy(update={"candidates": 3})


def test_the_choice_is_one_line() -> None:
    assert choice_line(candidate_table(PLANS, LOSSES)) == (
        "plan 2 of 3 is chosen, interlace without layers 2 5: loss 2.000 before and 0.500 after"
        " healing"
    )


def test_without_candidates_there_is_no_choice(tmp_path: Path) -> None:
    write_candidates(tmp_path, [], [])
    assert read_chosen(tmp_path) is None and not len(read_candidates(tmp_path))
    with pytest.raises(MissingInputError):
        read_chosen(tmp_path / "elsewhere")
