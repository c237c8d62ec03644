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


@pytest.mark.parametrize("size", [1, 3])
def test_tokens_are_those_that_generate_returns(dense: Any, batch: Batch, size: int) -> None:
    inputs = batch(size)
    with torch.inference_mode():
        token, cache = clock.first_token(dense, inputs)
        tokens = [token]
        for _ in range(2):
            tokens.append(clock.next_token(dense, tokens[-1], cache))
        generated = dense.generate(**inputs, max_new_tokens=3, do_sample=False, eos_token_id=None)
    assert torch.cat(tokens, dim=1).equal(generated[:, -3:])


def test_decode_is_the_mean_of_the_tokens_after_the_first(dense: Any, batch: Batch) -> None:
    with torch.inference_mode():
        timing = clock.time_request(dense, batch(), new_tokens=4)
    assert timing.decode == pytest.approx((timing.end_to_end - timing.ttft) / 3)


def test_one_token_has_no_decode(dense: Any, batch: Batch) -> None:
    with torch.inference_mode():
        timing = clock.time_request(dense, batch())
    assert timing.decode is None and timing.end_to_end == timing.ttft


def test_garbage_collection_is_switched_on_again() -> None:
    with clock._no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_vision_tower_is_found_where_there_is_one(dense: Any) -> None:
    class Blind(torch.nn.Module):
        def get_encoder(self, modality: str | None = None) -> torch.nn.Module:
            return self

    assert clock.vision_tower(dense) is dense.model.visual
    assert clock.vision_tower(Blind()) is None


def timed_pairs(
    monkeypatch: pytest.MonkeyPatch, repeats: int, warmup: int
) -> tuple[list[str], clock.Pairs]:
    """Pairs of one request by a clock that counts calls; also which model each call timed."""
    calls: list[str] = []

    def time_request(model: object, inputs: object, new_tokens: int) -> clock.RequestTiming:
        calls.append(str(model))
        return clock.RequestTiming(len(calls), len(calls), decode=None, prefill=None, vision=None)

    monkeypatch.setattr(clock, "time_request", time_request)
    params = Ttft(requests=1, repeats=repeats, warmup=warmup)
    return calls, clock.time_pairs(("dense", "tuned"), [{}], params, 0)  # type: ignore[arg-type]


def test_the_first_model_of_a_pair_alternates(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, _ = timed_pairs(monkeypatch, repeats=4, warmup=0)
    leads = calls[::2]
    assert leads[0] == leads[2] != leads[1] == leads[3]
    assert calls.count("dense") == calls.count("tuned") == 4


def test_warm_up_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    _, pairs = timed_pairs(monkeypatch, repeats=2, warmup=3)
    assert [len(request) for request in pairs] == [2]
    assert min(timing.ttft for pair in pairs[0] for timing in pair) == 2 * 3 + 1
