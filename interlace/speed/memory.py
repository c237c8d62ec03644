"""What a model takes of the memory: weights, the cache of a prompt, and the peak of a request."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all weights and buffers, shared ones once."""
    tensors = {id(each): each for each in (*model.parameters(), *model.buffers())}
    return sum(each.nbytes for each in tensors.values())


def cache_bytes(cache: Any) -> int:
    """Bytes of what a cache holds per layer: keys and values, or a linear layer's states."""
    held = [vars(layer) for layer in getattr(cache, "layers", ())]
    tensors = [each for each in tree_iter(held) if isinstance(each, torch.Tensor)]
    return sum(each.nbytes for each in tensors)


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the bytes of the storages that operators make, as long as these live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [each for each in tree_iter((args, kwargs)) if isinstance(each, torch.Tensor)]
        old = {each.untyped_storage()._cdata for each in given}
        made = func(*args, **(kwargs or {}))
        for each in tree_iter(made):
            if isinstance(each, torch.Tensor):
                self._follow(each.untyped_storage(), old)
        return made

    def _follow(self, storage: torch.UntypedStorage, old: set[int]) -> None:
        key = storage._cdata
        if key in self._known or key in old:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


def request_peak(run: Callable[[], Any], device: torch.device) -> int:
    """The most bytes that a request adds to what was allocated before it.

    On a CUDA device by the allocator's count; elsewhere by the tensors that operators make, which
    leaves out what an operator takes and gives back within itself.

    Args:
        run: sends the request; what it returns is alive until the end.
        device: that it runs on.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        kept = run()
        torch.cuda.synchronize(device)
        del kept
        return int(torch.cuda.max_memory_allocated(device)) - before
    with _Alive() as followed:
        kept = run()
        del kept
    return int(followed.peak)
