"""Times of the dense and the tuned model side by side, as `metrics/ttft.json` holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interlace.errors import MissingInputError
from interlace.report.facts.served import NEEDED, ServedTiming, parse_served, served_by
from interlace.system.documents import read_record

_Value = int | float | bool | str | None
_NUMBERS = ("_ms", "_bytes", "_speedup", "_low", "_high", "_ideal", "tokens", "pairs", "threads")

PHASES = {
    "vision": "vision tower",
    "prefill": "prefill",
    "ttft": "time to first token",
    "decode": "decode, per token",
    "end_to_end": "end to end",
}
MEMORY = {"weights": "weights", "cache": "KV cache of the longest prompt", "peak": "peak"}


@dataclass(frozen=True)
class PhaseTiming:
    """Times of one phase.

    Attributes:
        name: of the phase, for people.
        dense_ms: median of the dense model, milliseconds.
        tuned_ms: of the tuned model.
        speedup: median of paired ratios; None if its interval is too wide, or for the vision tower.
        low: end of the speedup's interval.
        high: the other end.
        ideal: ratio of FLOPs.
        refused: why there is no speedup.
        tokens: of the median prompt, where one benchmark was timed.
    """

    name: str
    dense_ms: float
    tuned_ms: float
    speedup: float | None
    low: float | None
    high: float | None
    ideal: float | None
    refused: str = ""
    tokens: float | None = None


@dataclass(frozen=True)
class Speed:
    """Everything that `ttft` measured.

    Attributes:
        phases: by key of `PHASES`, of single prompts.
        pairs: paired runs behind each median.
        device: a GPU, or a CPU with its threads.
        benchmarks: time to first token by benchmark or source.
        batches: by batch size, then by phase.
        memory: bytes of the dense and the tuned model, by name of `MEMORY`.
        served: times of servers of both models, by load.
        served_by: the servers, in words.
    """

    phases: Mapping[str, PhaseTiming]
    pairs: int
    device: str
    benchmarks: Mapping[str, PhaseTiming] = field(default_factory=dict)
    batches: Mapping[str, Mapping[str, PhaseTiming]] = field(default_factory=dict)
    memory: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    served: Sequence[ServedTiming] = ()
    served_by: str = ""

    @property
    def first_token(self) -> PhaseTiming:
        """The time to first token."""
        return self.phases["ttft"]


def read_timings(path: Path) -> Mapping[str, Any]:
    """Read what `ttft` wrote.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    metrics: dict[str, Any] = read_record(path, dict[str, _Value | dict[str, dict[str, _Value]]])
    groups: dict[str, dict[str, Any]] = {"": metrics}
    for group in ("benchmarks", "batches", "served"):
        members = metrics.get(group, {})
        if not isinstance(members, dict):
            raise MissingInputError(path, f"{group}: expected times by name")
        groups |= {f"{group}.{name}.": timed for name, timed in members.items()}
    needed = ("pairs", *(f"ttft_{name}" for name in ("speedup_low", "speedup_high", "ideal")))
    for prefix, timed in groups.items():
        keys = {key.replace("_dense_", "_tuned_") for key in timed if "_dense_" in key}
        keys |= {key for key in timed if key.endswith(_NUMBERS) and timed[key] is not None}
        keys |= set(needed) if not prefix and "ttft_dense_ms" in timed else set()
        keys |= {"ttft_dense_ms"} if prefix.startswith("benchmarks") else set()
        keys |= set(NEEDED) if prefix.startswith("served") else set()
        for key in sorted(keys):
            if type(timed.get(key)) not in (int, float):
                raise MissingInputError(path, f"{prefix}{key}: expected a number")
    return metrics


def parse_speed(metrics: Mapping[str, Any]) -> Speed | None:
    """Parse what `ttft` wrote; None where nothing was timed."""
    if "ttft_dense_ms" not in metrics:
        return None
    threads = metrics.get("threads", 0)
    with_threads = f" with {threads} thread{'s' * (threads != 1)}" if threads else ""
    return Speed(
        phases=_phases(metrics),
        pairs=metrics["pairs"],
        device="a GPU" if metrics.get("on_gpu") else f"a CPU{with_threads}",
        benchmarks={
            name: _timing(timed, "ttft", name)
            for name, timed in metrics.get("benchmarks", {}).items()
        },
        batches={size: _phases(timed) for size, timed in metrics.get("batches", {}).items()},
        memory={
            name: (metrics[f"{key}_dense_bytes"], metrics[f"{key}_tuned_bytes"])
            for key, name in MEMORY.items()
            if f"{key}_dense_bytes" in metrics
        },
        served=parse_served(metrics),
        served_by=served_by(metrics),
    )


def _phases(metrics: Mapping[str, Any]) -> dict[str, PhaseTiming]:
    return {
        key: _timing(metrics, key, name)
        for key, name in PHASES.items()
        if f"{key}_dense_ms" in metrics
    }


def _timing(metrics: Mapping[str, Any], key: str, name: str) -> PhaseTiming:
    return PhaseTiming(
        name=name,
        dense_ms=metrics[f"{key}_dense_ms"],
        tuned_ms=metrics[f"{key}_tuned_ms"],
        speedup=metrics.get(f"{key}_speedup"),
        low=metrics.get(f"{key}_speedup_low"),
        high=metrics.get(f"{key}_speedup_high"),
        ideal=metrics.get(f"{key}_ideal"),
        refused=metrics.get(f"{key}_speedup_refused", ""),
        tokens=metrics.get("tokens"),
    )
