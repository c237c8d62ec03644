from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from models import row, rows, tiny_qwen3_vl
from transformers import AutoModelForImageTextToText

from interlace import latency
from interlace.chat import Inputs, collate, encode_prompt, open_processor
from interlace.errors import InputError
from interlace.params import Ttft

DEEP, SHALLOW = 4, 2


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return (
        tiny_qwen3_vl(folder / "deep", layers=DEEP),
        tiny_qwen3_vl(folder / "shallow", layers=SHALLOW),
    )


@pytest.fixture(scope="module")
def metrics(checkpoints: tuple[Path, Path]) -> dict[str, float | int]:
    params = Ttft(requests=3, repeats=15, warmup=2)
    requests = [row(seed, images=seed % 2 + 1) for seed in range(3)]
    return latency.measure(*checkpoints, requests, params=params, seed=0)


@pytest.fixture(scope="module")
def models(checkpoints: tuple[Path, Path]) -> tuple[torch.nn.Module, torch.nn.Module]:
    deep, shallow = (AutoModelForImageTextToText.from_pretrained(path) for path in checkpoints)
    return deep.eval(), shallow.eval()


@pytest.fixture(scope="module")
def inputs(checkpoints: tuple[Path, Path]) -> Inputs:
    request = collate([encode_prompt(open_processor(checkpoints[0]), row(0))], pad_token_id=0)
    return {name: value for name, value in request.items() if name != "labels"}


def decoder_flops(config: object, tokens: int) -> int:
    """One decoder layer: projections, attention over all pairs of tokens, gated MLP."""
    text = config.text_config  # type: ignore[attr-defined]
    query = text.num_attention_heads * text.head_dim
    key = text.num_key_value_heads * text.head_dim
    weights = text.hidden_size * (2 * query + 2 * key + 3 * text.intermediate_size)
    return 2 * tokens * weights + 4 * tokens * tokens * query


def test_all_metrics_are_there_and_are_numbers(metrics: dict[str, float | int]) -> None:
    needed = {f"{part}_{name}_ms" for part in ("ttft", "vision", "prefill", "decode")
              for name in ("dense", "tuned")}  # fmt: skip
    needed |= {"ttft_speedup", "ttft_speedup_low", "ttft_speedup_high", "ttft_ideal"}
    needed |= {"prefill_speedup", "prefill_ideal", "flops_dense", "flops_tuned", "pairs", "tokens"}
    assert needed <= set(metrics)
    assert all(type(value) in (int, float) and value >= 0 for value in metrics.values())
    assert metrics["pairs"] == 45


def test_the_interval_holds_the_median(metrics: dict[str, float | int]) -> None:
    low, high = metrics["ttft_speedup_low"], metrics["ttft_speedup_high"]
    assert 0 < low <= metrics["ttft_speedup"] <= high


def test_fewer_layers_are_faster_ideally_and_measured(metrics: dict[str, float | int]) -> None:
    assert metrics["ttft_ideal"] > 1
    assert metrics["prefill_ideal"] == pytest.approx(DEEP / SHALLOW)
    assert metrics["prefill_speedup"] > 1
    assert 1 < metrics["ttft_ideal"] < metrics["prefill_ideal"]  # vision and head stay


def test_parts_fit_into_the_whole(metrics: dict[str, float | int]) -> None:
    for name in ("dense", "tuned"):
        assert metrics[f"vision_{name}_ms"] < metrics[f"ttft_{name}_ms"]
        assert metrics[f"prefill_{name}_ms"] < metrics[f"ttft_{name}_ms"]


def test_flops_of_the_decoder_match_the_formula(
    models: tuple[torch.nn.Module, torch.nn.Module], inputs: Inputs
) -> None:
    with torch.inference_mode():
        deep, shallow = (latency.counted(model, inputs) for model in models)
    layer = decoder_flops(models[0].config, inputs["input_ids"].shape[1])
    rotary = deep.prefill - DEEP * layer  # the outer product of positions and frequencies
    assert deep.total - shallow.total == (DEEP - SHALLOW) * layer
    assert 0 <= rotary < 0.01 * deep.prefill


def test_the_first_token_is_the_one_generated(
    models: tuple[torch.nn.Module, torch.nn.Module], inputs: Inputs
) -> None:
    with torch.inference_mode():
        token, cache = latency.first_token(models[0], inputs)
        following = latency._next_token(models[0], inputs, token, cache)
        generated = models[0].generate(  # type: ignore[operator]
            **inputs, max_new_tokens=2, do_sample=False, eos_token_id=None
        )
    assert generated[0, -2:].tolist() == [token, following]


def test_a_text_only_request_has_no_vision_time(checkpoints: tuple[Path, Path]) -> None:
    params = Ttft(requests=1, repeats=1, warmup=0)
    metrics = latency.measure(*checkpoints, [row(0, images=0)], params=params, seed=0)
    assert "vision_dense_ms" not in metrics
    assert metrics["ttft_dense_ms"] > 0


def test_a_model_without_a_vision_tower_has_none() -> None:
    class Blind(torch.nn.Module):
        def get_encoder(self, modality: str | None = None) -> torch.nn.Module:
            return self

    assert latency.vision_tower(Blind()) is None


def test_the_vision_tower_is_found(models: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    assert latency.vision_tower(models[0]) is models[0].model.visual


def test_hooks_and_garbage_collection_are_put_back(
    models: tuple[torch.nn.Module, torch.nn.Module], inputs: Inputs
) -> None:
    with torch.inference_mode():
        latency.timed(models[0], inputs)
    with latency._no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in models[0].modules())


def test_who_goes_first_alternates(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def timed(model: object, inputs: object) -> latency.Timing:
        calls.append(str(model))
        return latency.Timing(ttft=1.0, decode=1.0, prefill=None, vision=None)

    monkeypatch.setattr(latency, "timed", timed)
    params = Ttft(requests=1, repeats=4, warmup=0)
    latency._time_pairs(("dense", "tuned"), [{}], params, 0)  # type: ignore[arg-type]
    leads = calls[::2]
    assert leads[0] == leads[2] != leads[1] == leads[3]
    assert calls.count("dense") == calls.count("tuned") == 4


def test_the_interval_is_seeded_and_narrows_with_its_level() -> None:
    rng = np.random.default_rng(0)
    dense, tuned = rng.lognormal(0.3, 0.1, (6, 9)), rng.lognormal(0.0, 0.1, (6, 9))
    wide = latency.ratio_interval(dense, tuned, confidence=0.99, seed=1)
    assert wide == latency.ratio_interval(dense, tuned, confidence=0.99, seed=1)
    narrow = latency.ratio_interval(dense, tuned, confidence=0.5, seed=1)
    assert wide[0] == narrow[0] == np.median(dense / tuned)
    assert wide[1] < narrow[1] <= narrow[0] <= narrow[2] < wide[2]


def test_a_drift_that_hits_both_models_leaves_the_ratio_alone() -> None:
    drift = np.exp(np.random.default_rng(0).normal(0, 1, (4, 5)))
    assert latency.ratio_interval(3 * drift, 2 * drift, confidence=0.95, seed=0) == pytest.approx(
        (1.5, 1.5, 1.5)
    )


def test_no_rows_is_the_users_mistake(checkpoints: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="no rows"):
        latency.measure(*checkpoints, [], params=Ttft(), seed=0)


def test_rows_are_drawn_by_the_seed(checkpoints: tuple[Path, Path]) -> None:
    processor = open_processor(checkpoints[0])
    params = Ttft(requests=4)

    def lengths(seed: int) -> list[int]:
        drawn = latency._requests(processor, rows(30), params, seed)
        return [request["input_ids"].shape[1] for request in drawn]

    assert lengths(0) == lengths(0) != lengths(1)
    assert len(lengths(0)) == 4
