from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from models import row, tiny_qwen3_vl
from transformers import AutoModelForImageTextToText

from interlace.model.chat import Inputs, encode_prompt
from interlace.model.open import open_processor
from interlace.params.timing import Ttft
from interlace.speed import clock as timing
from interlace.speed.requests import TimedRequest


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen3_vl(tmp_path_factory.mktemp("checkpoint") / "model", layers=4)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> torch.nn.Module:
    return AutoModelForImageTextToText.from_pretrained(checkpoint).eval()


def batch(checkpoint: Path, size: int) -> Inputs:
    return TimedRequest("a", encode_prompt(open_processor(checkpoint), row(0))).batch(size)


@pytest.mark.parametrize("size", [1, 3])
def test_the_tokens_are_the_ones_generated(
    model: torch.nn.Module, checkpoint: Path, size: int
) -> None:
    inputs = batch(checkpoint, size)
    with torch.inference_mode():
        tokens, cache = timing.first_token(model, inputs)
        made = [tokens]
        for _ in range(2):
            made.append(timing.next_token(model, made[-1], cache))
        generated = model.generate(  # type: ignore[operator]
            **inputs, max_new_tokens=3, do_sample=False, eos_token_id=None
        )
    assert torch.cat(made, dim=1).equal(generated[:, -3:])


def test_decode_is_the_mean_of_the_tokens_after_the_first(
    model: torch.nn.Module, checkpoint: Path
) -> None:
    with torch.inference_mode():
        took = timing.time_request(model, batch(checkpoint, 1), new_tokens=4)
    assert took.decode == pytest.approx((took.end_to_end - took.ttft) / 3)


def test_the_end_of_one_token_is_the_first(model: torch.nn.Module, checkpoint: Path) -> None:
    with torch.inference_mode():
        took = timing.time_request(model, batch(checkpoint, 1))
    assert took.decode is None and took.end_to_end == took.ttft


def test_a_model_without_a_vision_tower_has_none() -> None:
    class Blind(torch.nn.Module):
        def get_encoder(self, modality: str | None = None) -> torch.nn.Module:
            return self

    assert timing.vision_tower(Blind()) is None


def test_the_vision_tower_is_found(model: torch.nn.Module) -> None:
    assert timing.vision_tower(model) is model.model.visual


def test_hooks_and_garbage_collection_are_put_back(
    model: torch.nn.Module, checkpoint: Path
) -> None:
    with torch.inference_mode():
        timing.time_request(model, batch(checkpoint, 1))
    with timing._no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_who_goes_first_alternates(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def time_request(model: object, inputs: object, new_tokens: int) -> timing.Timing:
        calls.append(str(model))
        return timing.Timing(ttft=1.0, end_to_end=1.0, decode=1.0, prefill=None, vision=None)

    monkeypatch.setattr(timing, "time_request", time_request)
    params = Ttft(requests=1, repeats=4, warmup=0)
    timing.time_pairs(("dense", "tuned"), [{}], params, 0)  # type: ignore[arg-type]
    leads = calls[::2]
    assert leads[0] == leads[2] != leads[1] == leads[3]
    assert calls.count("dense") == calls.count("tuned") == 4


def test_warm_up_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(100, 0, -1))

    def time_request(model: object, inputs: object, new_tokens: int) -> timing.Timing:
        took = float(next(times))
        return timing.Timing(ttft=took, end_to_end=took, decode=None, prefill=None, vision=None)

    monkeypatch.setattr(timing, "time_request", time_request)
    params = Ttft(requests=1, repeats=2, warmup=3)
    pairs = timing.time_pairs(("dense", "tuned"), [{}], params, 0)  # type: ignore[arg-type]
    assert [len(request) for request in pairs] == [2]
    assert max(took.ttft for pair in pairs[0] for took in pair) == 100 - 2 * 3
