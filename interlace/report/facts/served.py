"""Times of servers of the dense and the tuned model, by load, as `metrics/ttft.json` holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interlace.report.facts.table import Table
from interlace.report.facts.wording import speedup_text, times_text
from interlace.speed.flops import NAMES

VALUES = {"ttft": "ttft_{}_ms", "throughput": "throughput_{}_tokens_per_s"}
NEEDED = (
    *("concurrency", "new_tokens"),
    *(value.format("dense") for value in VALUES.values()),
    *(f"{key}_{name}" for key in VALUES for name in ("speedup_low", "speedup_high", "ideal")),
)
HEADINGS = [
    *("requests at once", "answer, tokens"),
    *("first token, dense, ms", "tuned, ms", "speedup", "ideal"),
    *("tokens/s, dense", "tuned", "speedup", "ideal"),
]


@dataclass(frozen=True)
class ServedRatio:
    """One quantity of both models.

    Attributes:
        dense: of the dense model: milliseconds, or tokens a second.
        tuned: of the tuned model.
        speedup: median of paired ratios; None if its interval is too wide.
        low: end of the speedup's interval.
        high: the other end.
        ideal: ratio of FLOPs.
    """

    dense: float
    tuned: float
    speedup: float | None
    low: float
    high: float
    ideal: float


@dataclass(frozen=True)
class ServedTiming:
    """Times of servers under one load.

    Attributes:
        concurrency: requests at the same time.
        new_tokens: length of an answer; 1: prefill alone.
        first_token: time to first token.
        throughput: tokens a second, all requests together.
    """

    concurrency: int
    new_tokens: int
    first_token: ServedRatio
    throughput: ServedRatio


def parse_served(metrics: Mapping[str, Any]) -> list[ServedTiming]:
    """Parse the served times that `ttft` wrote; none where no server was timed."""
    return [
        ServedTiming(
            timed["concurrency"],
            timed["new_tokens"],
            _ratio(timed, "ttft"),
            _ratio(timed, "throughput"),
        )
        for timed in metrics.get("served", {}).values()
    ]


def _ratio(timed: Mapping[str, Any], key: str) -> ServedRatio:
    dense, tuned = (timed[VALUES[key].format(name)] for name in NAMES)
    low, high, ideal = (timed[f"{key}_{name}"] for name in ("speedup_low", "speedup_high", "ideal"))
    return ServedRatio(dense, tuned, timed.get(f"{key}_speedup"), low, high, ideal)


def served_by(metrics: Mapping[str, Any]) -> str:
    """Name the servers: by their command, if they were started, and their version."""
    name = str(metrics.get("served_command") or "servers")
    version = metrics.get("served_version")
    return f"{name}, version {version}" if version else name


def served_table(timings: Sequence[ServedTiming], servers: str) -> Table:
    """Return first tokens and tokens a second by load, with speedups and ideals.

    Args:
        timings: by load.
        servers: in words.
    """
    rows = [
        [
            str(timing.concurrency),
            str(timing.new_tokens),
            *_cells(timing.first_token),
            *_cells(timing.throughput),
        ]
        for timing in timings
    ]
    return Table(HEADINGS, rows, f"Served by {servers}; the same requests in turn")


def _cells(ratio: ServedRatio) -> list[str]:
    values = [f"{ratio.dense:,.1f}", f"{ratio.tuned:,.1f}"]
    speedup = speedup_text(ratio.speedup, ratio.low, ratio.high)
    return [*values, speedup, times_text(ratio.ideal)]
