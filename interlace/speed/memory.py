"""Memory of a model: its weights, the cache of a prompt, and the peak of a request on CUDA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_iter


def weight_bytes(model: nn.Module) -> int:
    """Add up the bytes of all weights and buffers; shared ones count once."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def cache_bytes(cache: Any) -> int:
    """Add up a cache's bytes: keys and values per layer, or the states of a linear layer."""
    layers = [vars(layer) for layer in getattr(cache, "layers", ())]
    return sum(leaf.nbytes for leaf in tree_iter(layers) if isinstance(leaf, torch.Tensor))


def request_peak(run: Callable[[], Any], device: torch.device) -> int:
    """Measure the most bytes that a request adds to those already allocated.

    Args:
        run: sends the request; its result is alive until the end.
        device: a CUDA device, whose allocator counts.
    """
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    allocated = torch.cuda.memory_allocated(device)
    result = run()
    torch.cuda.synchronize(device)
    del result
    return int(torch.cuda.max_memory_allocated(device)) - allocated
