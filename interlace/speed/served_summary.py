"""Summarise the times of servers by load, for metrics/ttft.json. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from interlace.params.timing import Ttft
from interlace.speed.compare import speedup
from interlace.speed.flops import NAMES
from interlace.speed.load import Load
from interlace.speed.served import Rounds, ServedTimes


def served_metrics(
    times: ServedTimes, ideals: Mapping[str, Any], params: Ttft, seed: int
) -> dict[str, Any]:
    """Summarise served times by load, for metrics/ttft.json.

    Args:
        times: of the servers.
        ideals: `ttft_ideal` and, where replies have further tokens, `decode_ideal`.
        params: the level of intervals, and their largest width.
        seed: of the bootstrap.

    Returns:
        `served` by load, and facts of the servers as `served_*`. Of a load, `ttft_*` and `decode_*`
        are as for models that are opened here, with medians over rounds; `throughput_*` are tokens
        a second of all requests together, and the speedup is that of the time per token.
    """
    summaries = {
        load.name: _summary(load, rounds, params, seed) | _ideals(load, times.rounds, ideals)
        for load, rounds in times.rounds.items()
    }
    facts = {f"served_{name}": value for name, value in times.facts.items()}
    return facts | {"served": summaries}


def _summary(load: Load, rounds: Rounds, params: Ttft, seed: int) -> dict[str, Any]:
    """Return medians over rounds, and speedups with their intervals."""
    metrics: dict[str, Any] = {
        "concurrency": load.concurrency,
        "new_tokens": load.new_tokens,
        "rounds": len(rounds),
    }
    for phase in ("ttft", "decode"):
        values = _pairs(rounds, phase)
        if values is not None:
            for name, row in zip(NAMES, values, strict=True):
                metrics[f"{phase}_{name}_ms"] = float(np.median(row))
            metrics |= speedup(values[:1], values[1:], phase, params, seed)
    seconds = _pairs(rounds, "seconds_per_token")
    assert seconds is not None
    for index, name in enumerate(NAMES):
        metrics[f"throughput_{name}_tokens_per_s"] = float(np.median(1 / seconds[index]))
        metrics[f"reply_{name}_tokens"] = float(np.mean([pair[index].tokens for pair in rounds]))
    return metrics | speedup(seconds[:1], seconds[1:], "throughput", params, seed)


def _pairs(rounds: Rounds, name: str) -> np.ndarray | None:
    """Return one time by model and round, [2, R]; `None` if a turn has none."""
    values = [[getattr(turn, name) for turn in pair] for pair in rounds]
    if any(value is None for pair in values for value in pair):
        return None
    return np.array(values, dtype=np.float64).T


def _ideals(
    load: Load, rounds: Mapping[Load, Rounds], ideals: Mapping[str, Any]
) -> dict[str, float]:
    """Return the speedups that FLOPs promise for a load.

    The throughput of long replies has a share of each: prefill takes, of the dense model's time per
    reply, what a reply of one token takes at the same concurrency.
    """
    first = ideals["ttft_ideal"]
    if load.new_tokens == 1 or "decode_ideal" not in ideals:
        return {"ttft_ideal": first, "throughput_ideal": first}
    further = ideals["decode_ideal"]
    prefill = _dense_seconds(rounds[Load(load.concurrency, 1)])
    share = min(1.0, prefill / _dense_seconds(rounds[load]))
    return {
        "ttft_ideal": first,
        "decode_ideal": further,
        "throughput_ideal": 1 / (share / first + (1 - share) / further),
    }


def _dense_seconds(rounds: Rounds) -> float:
    """Return the dense model's seconds per reply, a median over rounds."""
    return float(np.median([dense.seconds_per_token * dense.tokens for dense, _ in rounds]))


def served_line(metrics: Mapping[str, Any]) -> str:
    """Say the served speedups of the first token in one line."""
    speedups = [
        f"{summary['ttft_speedup']:.2f}x at {summary['concurrency']}"
        for summary in metrics["served"].values()
        if summary["new_tokens"] == 1 and summary["ttft_speedup"] is not None
    ]
    ideal = f"ideal {metrics['ttft_ideal']:.2f}x"
    return f"{', '.join(speedups) or 'no ratio is narrow enough'}, {ideal}"
