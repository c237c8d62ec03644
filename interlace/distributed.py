"""The processes that one launch starts: which one this is, how many there are, waiting for all.

torchrun and its like say so in the environment. Without them there is one process, and nothing here
does anything. torch is imported only where there are several.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from interlace.errors import ContractError

if TYPE_CHECKING:
    import torch


TIMEOUT = timedelta(hours=3)  # how far one process may be behind another, however long the run


def process_rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def device() -> torch.device:
    """Where this process computes: its own GPU, or the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def meet(timeout: timedelta = TIMEOUT) -> None:
    """Meet the other processes of the launch, where there are any and they have not met.

    They talk over nccl where there are GPUs, over gloo where there are none.

    Args:
        timeout: how long one may wait for another.
    """
    if world_size() == 1:
        return
    import torch
    from torch import distributed

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(device())
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=timeout)


@contextmanager
def process_group(timeout: timedelta = TIMEOUT) -> Iterator[None]:
    """Let the processes of a launch wait for each other while the block runs.

    A process that fails leaves without a word: its launcher ends the others.

    Args:
        timeout: how long one may wait for another.
    """
    if world_size() == 1:
        yield
        return
    from torch import distributed

    meet(timeout)
    yield
    distributed.destroy_process_group()


def barrier() -> None:
    """Wait until every process has come here.

    Raises:
        ContractError: one is gone, or did not come in time.
    """
    if world_size() > 1:
        from torch import distributed

        with _all_come():
            distributed.barrier()


def gather(part: Any) -> list[Any]:
    """What each process brings, in their order; every process gets it.

    Raises:
        ContractError: one is gone, or did not come in time.
    """
    parts = [part] * world_size()
    if world_size() > 1:
        from torch import distributed

        with _all_come():
            distributed.all_gather_object(parts, part)
    return parts


@contextmanager
def _all_come() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what every backend raises
        reason = " ".join(str(error).split())[:200]
        raise ContractError(
            f"process {process_rank()} of {world_size()}: another one is gone or too far behind"
            f" ({reason}); see what it said, then run the stage again: finished work is kept"
        ) from None
