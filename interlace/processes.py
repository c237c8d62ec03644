"""The processes that a launcher started side by side, and sums over them."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed


def join_processes() -> None:
    """Meet the processes that a launcher started beside this one, if any."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group()


def world() -> tuple[int, int]:
    """How many processes there are, and which this is."""
    if not distributed.is_initialized():
        return 1, 0
    return distributed.get_world_size(), distributed.get_rank()


def is_first() -> bool:
    """Whether this process writes."""
    return os.environ.get("RANK", "0") == "0"


def summed(tensors: Iterable[Tensor]) -> None:
    """Add tensors up over all processes, in place."""
    if distributed.is_initialized():
        for tensor in tensors:
            distributed.all_reduce(tensor)


def wait_for_everyone() -> None:
    """Return when every process has come here."""
    if distributed.is_initialized():
        distributed.barrier()
