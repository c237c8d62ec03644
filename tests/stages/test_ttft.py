"""`ttft` writes the times of opened models, and beside them those of servers, if any were asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sources_json import write_sources

from interlace.speed.load import Load, TurnTiming
from interlace.speed.served import ServedTimes
from interlace.system.documents import as_yaml
from stages import ttft

OPENED = {
    "ttft_speedup": 1.2,
    "ttft_speedup_low": 1.1,
    "ttft_speedup_high": 1.3,
    "ttft_ideal": 1.25,
}
ROUNDS = [(TurnTiming(12.0, None, 0.012, 1.0), TurnTiming(10.0, None, 0.01, 1.0))] * 3


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_served_times_stand_beside_those_of_opened_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    def time_servers(*models: Any, params: Any, logs: Path, **other: Any) -> ServedTimes | None:
        assert logs.as_posix() == ".scratch/served/ttft"
        served = params.engine == "vllm"
        return ServedTimes({"engine": "vllm"}, {Load(1, 1): ROUNDS}) if served else None

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(ttft, "timed_rows", lambda *args, **options: [])
    monkeypatch.setattr(ttft, "compare_checkpoints", lambda *args, **options: dict(OPENED))
    monkeypatch.setattr(ttft, "time_servers", time_servers)
    Path("artifacts/tuned").mkdir(parents=True)
    write_sources(Path())
    Path("params.yaml").write_text(as_yaml({"ttft": {"engine": engine}}))
    result = CliRunner().invoke(ttft.main, [])
    assert result.exit_code == 0, result.output
    times = json.loads(Path("metrics/ttft.json").read_text())
    assert OPENED.items() <= times.items()
    lines = ["ttft: 1.20x (1.10 to 1.30), ideal 1.25x"]
    if engine == "vllm":
        assert times["served"]["prefill_1"]["ttft_speedup"] == pytest.approx(1.2)
        lines.append("ttft: served by vllm: 1.20x at 1, ideal 1.25x")
    else:
        assert times.keys() == OPENED.keys() | {"weights"}
    assert result.output.splitlines() == lines
