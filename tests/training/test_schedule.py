"""Learning rates, and the curve that shows them."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from training_runs import curve

from interlace.training.curve import write_curve
from interlace.training.resume import Update
from interlace.training.schedule import CosineSchedule


def test_the_learning_rate_is_that_of_transformers_cosine_schedule() -> None:
    from transformers import get_cosine_schedule_with_warmup

    schedule = CosineSchedule(peak=3e-4, steps=37, warmup_ratio=0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    reference = get_cosine_schedule_with_warmup(optimizer, math.ceil(0.1 * 37), 37)
    for step in range(37):
        (expected,) = reference.get_last_lr()
        assert schedule.learning_rate(step) == pytest.approx(expected, rel=1e-12)
        optimizer.step()
        reference.step()


def test_a_warm_up_that_skips_zero_reaches_the_same_peak_and_fall() -> None:
    schedule = CosineSchedule(peak=1.0, steps=100, warmup_ratio=0.03, skip_zero=True)
    from_zero = CosineSchedule(peak=1.0, steps=100, warmup_ratio=0.03)
    rates = [schedule.learning_rate(step) for step in range(100)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1]
    assert rates[3:] == [from_zero.learning_rate(step) for step in range(3, 100)]
    assert all(a > b for a, b in pairwise(rates[3:])) and 0 < rates[-1] < 1e-3


def test_an_averaged_column_is_the_mean_since_the_row_before(tmp_path: Path) -> None:
    updates = [
        Update(step=n, learning_rate=0.1, tokens=10 * n, values={"loss": n, "norm": n, "other": 0})
        for n in range(1, 8)
    ]
    columns = ["loss", "step", "norm", "tokens"]
    write_curve(tmp_path / "loss.csv", updates, columns, log_steps=3, averaged=["loss"])
    rows = curve(tmp_path / "loss.csv")
    assert [list(row) for row in rows] == [columns] * 4
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1), (3, 2.5), (6, 5), (7, 7)]
    assert [(row["norm"], row["tokens"]) for row in rows] == [(1, 10), (3, 30), (6, 60), (7, 70)]
