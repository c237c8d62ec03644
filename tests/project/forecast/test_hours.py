"""Tokens, hours and disk of a run, against sums over its rows and updates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from project.forecast import forecasts

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.project.forecast import disk, hours
from interlace.project.forecast.forecast import forecast
from interlace.project.forecast.rates import timed_rates
from interlace.project.forecast.sizes import model_sizes
from interlace.speed.clock import count_flops


def test_flops_are_those_that_torch_counts(tmp_path: Path) -> None:
    checkpoint = Checkpoint(models.tiny_llama(tmp_path / "model", layers=5))
    model, sizes = checkpoint.open_model(dtype="float32"), model_sizes(checkpoint)
    ids = torch.full((3, 40), 7)
    with torch.inference_mode():
        work = count_flops(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    attention = 3 * 40 * sizes.n_layers * 2 * 40 * sizes.query  # torch counts pairs that are masked
    norms = 3 * 40 * sizes.n_layers * 2 * 2 * sizes.width  # in our count of weights, not products
    expected = hours.forward_flops(sizes, 3 * 40, 40) + attention - norms
    assert work.prefill == pytest.approx(expected, rel=1e-3)


def test_the_card_limits_single_tokens_by_its_memory_and_by_starting_layers() -> None:
    case = forecasts.setting()
    rates = forecasts.rates(case)
    weights = 2 * (36 * forecasts.LAYER + case.dense.head)
    step = hours._step_seconds(case.dense, rates, 2, 1)
    assert step == max(weights / rates.bandwidth, 36 * rates.layer_seconds)
    slow = replace(rates, bandwidth=1e9)
    assert hours._step_seconds(case.dense, slow, 2, 1) == weights / 1e9


def test_processes_share_the_rows_and_not_the_start() -> None:
    one, eight = (
        forecast(case, forecasts.rates(case))
        for case in (forecasts.setting(), forecasts.setting(gpus=8))
    )
    start = hours.START + forecasts.SIZES.total * 2 / hours.READ
    for name in ("collect", "evaluate dense"):
        work = one.stage(name).cost.seconds - start
        assert eight.stage(name).cost.seconds == pytest.approx(start + work / 8)
    for name in ("export", "ttft"):
        assert eight.stage(name).cost == one.stage(name).cost


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({}, 240_000),
        ({"finetune": {"epochs": 0.5}}, 120_000),
        ({"finetune": {"max_steps": 10}}, 320),
        ({"finetune": {"max_steps": 0}}, 0),
        ({"answers": {"source": "dense", "samples": 6400}}, 6400),
    ],
)
def test_training_reads_each_row_of_each_update(changes: dict[str, Any], rows: int) -> None:
    case = forecasts.setting(**changes)
    row = 500 + 0.7 * 49  # an image of 50,176 pixels has 49 tokens
    tokens = forecast(case, forecasts.rates(case)).stage("finetune").cost.tokens
    assert tokens == pytest.approx(rows * row)


def test_the_pruned_checkpoint_is_as_large_as_the_exported_one(
    dense_dir: Path, pruned_dir: Path
) -> None:
    sizes = model_sizes(Checkpoint(dense_dir))
    case = replace(forecasts.setting(), dense=sizes, drops=2)
    written = sum(path.stat().st_size for path in pruned_dir.glob("*.safetensors"))
    assert disk.pruned_bytes(case) == pytest.approx(written, rel=0.1)  # headers are the rest


def test_points_to_resume_from_are_those_that_are_kept() -> None:
    def passing(**recipe: Any) -> float:
        case = forecasts.setting(finetune=recipe)
        return disk.tuned_bytes(case, case.pruned, case.params.finetune).passes

    point = 12 * 9 * forecasts.LAYER
    assert passing() == 3 * point
    assert passing(max_steps=500) == 2 * point
    assert passing(max_steps=20) == point
    assert passing(max_steps=0) == 0


def test_passes_of_the_model_are_timed(dense_dir: Path) -> None:
    case = forecasts.setting(gpus=0)
    one, two = (timed_rates(Checkpoint(dense_dir), "float32", case.machine, n) for n in (1, 2))
    assert one.forward > 0 and one.training > 0 and one.layer_seconds > 0
    assert "tokens/s" in one.origin and two.origin.startswith("timed here")
