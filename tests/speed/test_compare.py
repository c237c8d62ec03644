from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import row, tiny_qwen3_vl

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.params.timing import Ttft
from interlace.speed.clock import RequestTiming
from interlace.speed.compare import (
    compare_checkpoints,
    pair_metrics,
    ratio_interval,
    speedup,
    speedup_line,
)
from interlace.speed.flops import Work

PHASES = ("ttft", "prefill", "decode", "end_to_end")
MODELS = ("dense", "tuned")
Pair = tuple[Checkpoint, Checkpoint]


@pytest.fixture(scope="module")
def checkpoints(dense_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Checkpoints of six and of three layers."""
    shallow = tiny_qwen3_vl(tmp_path_factory.mktemp("shallow"), layers=3)
    return Checkpoint(dense_dir), Checkpoint(shallow)


@pytest.fixture(scope="module")
def metrics(checkpoints: Pair) -> dict[str, Any]:
    params = Ttft(requests=3, repeats=8, warmup=2, new_tokens=3, batch_sizes=(2,), max_interval=100)
    requests = [row(seed, images=seed % 2 + 1, source="ab"[seed % 2]) for seed in range(3)]
    return compare_checkpoints(*checkpoints, requests, params=params, seed=0)


def test_every_phase_has_times_a_speedup_and_an_ideal(metrics: dict[str, Any]) -> None:
    needed = {f"{phase}_{name}_ms" for phase in (*PHASES, "vision") for name in MODELS}
    needed |= {f"{phase}_ideal" for phase in PHASES}
    assert needed <= set(metrics)
    assert "vision_speedup" not in metrics
    assert (metrics["pairs"], metrics["requests"], metrics["new_tokens"]) == (24, 3, 3)
    for phase in PHASES:
        low, high = metrics[f"{phase}_speedup_low"], metrics[f"{phase}_speedup_high"]
        assert 0 < low <= metrics[f"{phase}_speedup"] <= high
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_fewer_layers_are_faster_ideally_and_by_the_clock(metrics: dict[str, Any]) -> None:
    assert metrics["prefill_ideal"] == pytest.approx(2, rel=0.01)
    assert metrics["prefill_speedup"] > 1
    assert 1 < metrics["ttft_ideal"] < metrics["prefill_ideal"]  # vision and head stay
    assert metrics["cache_dense_bytes"] == 2 * metrics["cache_tuned_bytes"] > 0


def test_a_phase_takes_less_than_the_request(metrics: dict[str, Any]) -> None:
    for name in MODELS:
        vision, prefill, ttft, end_to_end = (
            metrics[f"{phase}_{name}_ms"] for phase in ("vision", "prefill", "ttft", "end_to_end")
        )
        assert max(vision, prefill) < ttft < end_to_end


def test_each_source_and_each_batch_size_is_reported(metrics: dict[str, Any]) -> None:
    assert set(metrics["benchmarks"]) == {"a", "b"}
    assert {"ttft_speedup", "ttft_ideal", "tokens"} <= set(metrics["benchmarks"]["a"])
    assert metrics["batches"]["2"]["flops_dense"] == 2 * metrics["flops_dense"]  # median request


def test_a_text_only_request_of_one_token_has_neither_vision_nor_decode(checkpoints: Pair) -> None:
    params = Ttft(requests=1, repeats=1, warmup=0, new_tokens=1)
    metrics = compare_checkpoints(*checkpoints, [row(0, images=0)], params=params, seed=0)
    assert not [key for key in metrics if key.startswith(("vision_", "decode_", "end_to_end_"))]


def test_benchmarks_in_shapes_are_timed_in_place_of_rows(checkpoints: Pair) -> None:
    params = Ttft(shapes=("ScienceQA", "POPE"), repeats=1, warmup=0, new_tokens=1)
    metrics = compare_checkpoints(*checkpoints, [], params=params, seed=0)
    assert set(metrics["benchmarks"]) == {"ScienceQA", "POPE"}
    with pytest.raises(InputError, match="no rows"):
        compare_checkpoints(*checkpoints, [], params=Ttft(), seed=0)


@pytest.mark.parametrize(("bound", "ratio"), [(0.6, None), (0.7, 1.5)])
def test_an_interval_wider_than_a_share_of_the_ratio_gives_a_reason(
    bound: float, ratio: float | None
) -> None:
    dense, tuned = np.array([[1.0, 1.5, 2.0]]), np.ones((1, 3))
    metrics = speedup(dense, tuned, "ttft", Ttft(max_interval=bound), 0)
    assert (metrics["ttft_speedup_low"], metrics["ttft_speedup_high"]) == (1, 2)  # 2/3 of 1.5
    assert metrics["ttft_speedup"] == ratio
    reason = metrics.get("ttft_speedup_refused", "")
    assert ("is wider than 60% of it" in str(reason)) == (ratio is None)


def test_end_to_end_weighs_ideals_by_the_dense_times() -> None:
    dense, tuned = (
        RequestTiming(ttft=ms, end_to_end=3 * ms, decode=ms, prefill=ms / 2, vision=1.0)
        for ms in (10.0, 8.0)
    )
    work = (Work(total=120, prefill=100, decode=12), Work(total=70, prefill=50, decode=7))
    metrics = pair_metrics([[(dense, tuned)] * 3], [work], Ttft(new_tokens=3), 0)
    first, further = 120 / 70, 12 / 7
    assert metrics["end_to_end_ideal"] == pytest.approx(30 / (10 / first + 20 / further))
    assert metrics["end_to_end_speedup"] == pytest.approx(1.25)


def test_the_interval_is_seeded_and_narrows_with_its_level() -> None:
    rng = np.random.default_rng(0)
    dense, tuned = rng.lognormal(0.3, 0.1, (6, 9)), rng.lognormal(0.0, 0.1, (6, 9))
    wide, again, narrow = (
        ratio_interval(dense, tuned, confidence=level, seed=1) for level in (0.99, 0.99, 0.5)
    )
    assert wide == again
    assert wide[0] == narrow[0] == np.median(dense / tuned)
    assert wide[1] < narrow[1] <= narrow[0] <= narrow[2] < wide[2]


def test_a_drift_that_hits_both_models_leaves_the_ratio_alone() -> None:
    drift = np.exp(np.random.default_rng(0).normal(0, 1, (4, 5)))
    interval = ratio_interval(3 * drift, 2 * drift, confidence=0.95, seed=0)
    assert interval == pytest.approx((1.5, 1.5, 1.5))


def test_one_line_says_the_ratio_or_the_reason_for_its_absence() -> None:
    metrics = {"ttft_speedup": 1.2, "ttft_speedup_low": 1.1, "ttft_speedup_high": 1.3}
    metrics |= {"ttft_ideal": 1.25}
    assert speedup_line(metrics) == "1.20x (1.10 to 1.30), ideal 1.25x"
    refused = metrics | {"ttft_speedup": None, "ttft_speedup_refused": "too wide"}
    assert speedup_line(refused) == "no ratio: too wide (ideal 1.25x)"


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_on_a_gpu_a_request_needs_more_than_weights_and_cache(
    metrics: dict[str, Any], name: str
) -> None:
    assert torch.cuda.is_available() and metrics["on_gpu"] == 1
    stored = metrics[f"weights_{name}_bytes"] + metrics[f"cache_{name}_bytes"]
    assert metrics[f"peak_{name}_bytes"] > stored
