"""The bench of served speed: which loads get more rounds, and what the page says of one."""

from __future__ import annotations

import pytest

from benchmarks.serving import PREFILL_SECONDS, rounds_for_sureness, table
from interlace.params.timing import Ttft
from interlace.speed.load import Load, TurnTiming
from interlace.speed.served import Rounds, ServedTimes
from interlace.speed.served_summary import served_metrics

PARAMS = Ttft(requests=6, repeats=4)
SURE = [1.24, 1.25, 1.26, 1.25]
UNSURE = [0.7, 1.25, 1.3, 2.5]


def rounds(speedups: list[float], seconds: float) -> Rounds:
    """Rounds whose turns take so many seconds per request of one token."""
    return [
        (
            TurnTiming(1000 * seconds * speedup, None, seconds * speedup, 1.0),
            TurnTiming(1000 * seconds, None, seconds, 1.0),
        )
        for speedup in speedups
    ]


@pytest.mark.parametrize(
    ("load", "speedups", "seconds", "added"),
    [
        (Load(1, 1), SURE, 0.1, 0),
        (Load(1, 1), UNSURE, 0.1, 2),
        (Load(1, 1), UNSURE, PREFILL_SECONDS / 6, 0),
        (Load(16, 1), UNSURE, 0.1, 2),
        (Load(1, 1), UNSURE * 8, 0.01, 0),
        (Load(64, 1), UNSURE, 0.1, 2),
        (Load(64, 1), UNSURE, 0.4, 0),  # 8 turns of 64 requests have taken their time
        (Load(64, 32), UNSURE, 0.1, 0),  # and those of longer replies earlier
    ],
)
def test_a_load_gets_more_rounds_while_it_is_unsure_and_has_time(
    load: Load, speedups: list[float], seconds: float, added: int
) -> None:
    assert rounds_for_sureness(PARAMS, load, rounds(speedups, seconds)) == added


def test_a_line_of_the_table_has_the_rounds_and_the_shares_of_ideal() -> None:
    times = ServedTimes({}, {Load(16, 1): rounds(SURE, 0.1)})
    metrics = served_metrics(times, {"ttft_ideal": 1.3}, PARAMS, 0)
    line = table(metrics).splitlines()[-1]
    assert line.startswith("| 1 | 16 | 4 | 125.0 | 100.0 | 1.250 [")
    assert line.count("| 0.962 |") == 2
