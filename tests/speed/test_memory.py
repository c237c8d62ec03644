from __future__ import annotations

import torch
from torch import nn
from transformers import DynamicCache

from interlace.speed.memory import cache_bytes, request_peak, weight_bytes

CPU = torch.device("cpu")


def test_shared_weights_count_once() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 5, bias=False), "b": nn.Linear(3, 5, bias=False)})
    assert weight_bytes(model) == 2 * 15 * 4
    model["b"].weight = model["a"].weight
    assert weight_bytes(model) == 15 * 4


def test_a_cache_is_its_keys_and_values() -> None:
    cache = DynamicCache()
    for layer in range(3):
        cache.update(torch.zeros(1, 2, 7, 4), torch.zeros(1, 2, 7, 4), layer)
    assert cache_bytes(cache) == 3 * 2 * (2 * 7 * 4) * 4


def test_the_peak_is_what_is_alive_at_once() -> None:
    def run() -> torch.Tensor:
        first = torch.zeros(1000)
        second = first + 1  # two at once
        del first
        third = torch.cat([second, second])  # three thousand numbers
        del second
        return third.view(2, 1000).t()  # a view takes nothing

    assert request_peak(run, CPU) == 3000 * 4


def test_what_was_there_before_is_not_counted() -> None:
    weight = torch.zeros(1000, 1000)
    assert request_peak(lambda: weight.t().add_(1), CPU) == 0
