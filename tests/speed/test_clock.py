from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch

from interlace.model.chat import Inputs
from interlace.params.timing import Ttft
from interlace.speed import clock

Batch = Callable[..., Inputs]


@torch.inference_mode()
@pytest.mark.parametrize("size", [1, 3])
def test_tokens_are_those_that_generate_returns(dense: Any, batch: Batch, size: int) -> None:
    inputs = batch(size)
    token, cache = clock.first_token(dense, inputs)
    tokens = [token]
    for _ in range(2):
        tokens.append(clock.next_token(dense, tokens[-1], cache))
    generated = dense.generate(**inputs, max_new_tokens=3, do_sample=False, eos_token_id=None)
    assert torch.cat(tokens, dim=1).equal(generated[:, -3:])


@torch.inference_mode()
def test_decode_is_the_mean_of_the_tokens_after_the_first(dense: Any, batch: Batch) -> None:
    timing = clock.time_request(dense, batch(), new_tokens=4)
    assert timing.decode == pytest.approx((timing.end_to_end - timing.ttft) / 3)
    one = clock.time_request(dense, batch())
    assert one.decode is None and one.end_to_end == one.ttft


def test_garbage_collection_is_switched_on_again() -> None:
    with clock._no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_vision_tower_is_none_without_an_encoder(dense: Any) -> None:
    class Blind(torch.nn.Module):
        def get_encoder(self, modality: str | None = None) -> torch.nn.Module:
            return self

    assert clock.vision_tower(dense) is dense.model.visual
    assert clock.vision_tower(Blind()) is None


@pytest.mark.parametrize("warmup", [0, 3])
def test_models_take_turns_to_go_first_and_warm_up_is_not_counted(
    monkeypatch: pytest.MonkeyPatch, warmup: int
) -> None:
    calls: list[str] = []

    def time_request(model: str, inputs: object, new_tokens: int) -> clock.RequestTiming:
        calls.append(model)
        return clock.RequestTiming(len(calls), len(calls), decode=None, prefill=None, vision=None)

    monkeypatch.setattr(clock, "time_request", time_request)
    params = Ttft(requests=1, repeats=4, warmup=warmup)
    models: Any = ("dense", "tuned")
    ((*pairs,),) = clock.time_pairs(models, [{}], params, 0)
    leads = calls[::2]
    assert leads[0] == leads[2] != leads[1] == leads[3]
    assert calls.count("dense") == calls.count("tuned") == 4 + warmup
    numbers = {"dense": [], "tuned": []}
    for number, model in enumerate(calls, 1):
        numbers[model].append(number)
    timings = [tuple(int(timing.ttft) for timing in pair) for pair in pairs]
    assert timings == list(zip(*numbers.values(), strict=True))[warmup:]
