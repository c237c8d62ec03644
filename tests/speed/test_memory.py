from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import DynamicCache

from interlace.speed.memory import cache_bytes, request_peak, weight_bytes


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


@pytest.mark.gpu
def test_the_peak_counts_tensors_alive_at_once_but_not_earlier_ones() -> None:
    device = torch.device("cuda")
    weight = torch.zeros(2**20, device=device)

    def run() -> torch.Tensor:
        first = weight + 1
        second = first + 1  # two at once
        del first
        return torch.cat([second, second])  # three at once

    assert request_peak(run, device) == 3 * weight.nbytes
