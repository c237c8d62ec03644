"""Learning rates, and the curve that shows them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

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
