"""The processes of a launch: their ranks, barriers and gathers.

Launchers such as torchrun set the environment. Without them there is one process, and all calls
return at once. torch is imported only for several.
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


TIMEOUT = timedelta(days=2)  # that one process may wait for another, a judge or a lock


def process_rank() -> int:
    """Return this process's number, from 0."""
    return int(os.environ.get("RANK") or 0)


def world_size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def device() -> torch.device:
    """Return this process's own GPU, or the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK") or 0))
    return torch.device("cpu")


def meet(timeout: timedelta = TIMEOUT) -> None:
    """Connect the processes of the launch, unless they are connected or there is only one.

    They talk over nccl on GPUs, else over gloo.

    Args:
        timeout: of a process that waits for another.
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
    """Connect the processes of a launch while the block runs.

    A process that fails exits silently: its launcher ends the others.

    Args:
        timeout: of a process that waits for another.
    """
    if world_size() == 1:
        yield
        return
    from torch import distributed

    meet(timeout)
    yield
    distributed.destroy_process_group()


def barrier() -> None:
    """Wait until all processes have called it.

    Raises:
        ContractError: a process ended, or is too late.
    """
    if world_size() > 1:
        from torch import distributed

        with _timeouts_named():
            distributed.barrier()


def gather(value: Any) -> list[Any]:
    """Return every process's value, in the order of ranks, to all processes.

    Raises:
        ContractError: a process ended, or is too late.
    """
    values = [value] * world_size()
    if world_size() > 1:
        from torch import distributed

        with _timeouts_named():
            distributed.all_gather_object(values, value)
    return values


@contextmanager
def lost_processes_named() -> Iterator[None]:
    """Turn a backend's complaint about another process into one line, wherever they met.

    Raises:
        ContractError: a process ended, or is too late.
    """
    try:
        yield
    except RuntimeError as error:
        names = {kind.__name__ for kind in type(error).__mro__}
        if world_size() == 1 or not ("DistError" in names or "gloo" in str(error)):
            raise
        raise _lost_process(error) from None


@contextmanager
def _timeouts_named() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what every backend raises
        raise _lost_process(error) from None


def _lost_process(error: RuntimeError) -> ContractError:
    reason = " ".join(str(error).split())[:200]
    return ContractError(
        f"process {process_rank()} of {world_size()}: another process ended or is too late"
        f" ({reason}); see its output, then run the stage again: finished work is kept"
    )
