"""The machine that a run is planned for: its cards, their memory and speed, its free disk."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from interlace.errors import InputError, did_you_mean, nearest_name

GIB = 2**30


@dataclass(frozen=True)
class Card:
    """A GPU as its maker describes it.

    Attributes:
        memory: bytes.
        flops: of products of 16-bit matrices, without sparsity, FLOP/s.
        bandwidth: of its memory, bytes/s.
    """

    memory: float
    flops: float
    bandwidth: float


CARDS = {
    name: Card(memory * GIB, tflops * 1e12, gigabytes * 1e9)
    for name, memory, tflops, gigabytes in (
        ("B200", 179, 2250, 7700),
        ("H200", 139, 989, 4800),
        ("H100", 79, 989, 3350),
        ("A100", 79, 312, 2039),
        ("A100-40", 39, 312, 1555),
        ("L40S", 44, 362, 864),
        ("A6000", 47, 155, 768),
        ("A10", 22, 125, 600),
        ("L4", 22, 121, 300),
        ("RTX5090", 31, 210, 1792),
        ("RTX4090", 23, 165, 1008),
        ("RTX3090", 23, 71, 936),
        ("V100", 31, 125, 900),
        ("T4", 15, 65, 320),
    )
}


@dataclass(frozen=True)
class Machine:
    """A machine to run on, or several that are alike.

    Attributes:
        name: of a card, or of the CPU.
        gpus: of all machines together; 0: the CPU computes.
        memory: of each GPU, or of the machine without one, bytes.
        flops: peak of a GPU, or reached by all cores together, FLOP/s.
        bandwidth: of that memory, bytes/s.
        disk: free on the disk of this folder, bytes.
    """

    name: str
    gpus: int
    memory: float
    flops: float
    bandwidth: float
    disk: float

    def share(self, processes: int) -> float:
        """Return the memory of one of so many processes, bytes."""
        return self.memory if self.gpus else self.memory / processes

    @property
    def element(self) -> int:
        """Bytes of a number that is computed with where `dtype` is auto."""
        return 2 if self.gpus else 4


def find_machine(
    processes: int,
    *,
    card: str | None = None,
    gpus: int | None = None,
    memory: float | None = None,
    tflops: float | None = None,
    disk: float | None = None,
) -> Machine:
    """Describe the machine that is named, or else this one.

    Args:
        processes: that `launch` starts; so many GPUs are taken where only a card is named.
        card: a name in `CARDS`.
        gpus: GPUs in all; 0: none.
        memory: of each GPU, or of the machine without one, GiB.
        tflops: of each GPU, or of all cores.
        disk: free, GB.

    Raises:
        InputError: an unknown card, or GPUs without a card or its memory and speed.
    """
    machine = _named(card, gpus or processes) if card else None
    if machine is None and gpus != 0:
        machine = _own_gpus(gpus)
    if machine is None and gpus:
        if memory is None or tflops is None:
            raise InputError(
                f"--gpus = {gpus}: there is no GPU here to ask; add --card, one of"
                f" {', '.join(CARDS)}, or --memory and --tflops"
            )
        machine = Machine("GPU", gpus, memory * GIB, tflops * 1e12, 1e12, 0)
    if machine is None:
        machine = _cpu(None if tflops is None else tflops * 1e12)
    return Machine(
        machine.name,
        machine.gpus,
        machine.memory if memory is None else memory * GIB,
        machine.flops if tflops is None else tflops * 1e12,
        machine.bandwidth,
        shutil.disk_usage(Path.cwd()).free if disk is None else disk * 1e9,
    )


def _named(card: str, gpus: int) -> Machine:
    names = {_key(name): name for name in CARDS}
    if _key(card) not in names:
        near = nearest_name(_key(card), names)
        hint = did_you_mean(near and names[near])
        raise InputError(f"--card = {card!r}: not a known card; {hint}known: {', '.join(CARDS)}")
    name = names[_key(card)]
    facts = CARDS[name]
    return Machine(name, gpus, facts.memory, facts.flops, facts.bandwidth, 0)


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _own_gpus(gpus: int | None) -> Machine | None:
    """Describe the GPUs of this machine; `None` without any."""
    import torch

    if not torch.cuda.is_available():
        return None
    name, memory = torch.cuda.get_device_name(0), torch.cuda.mem_get_info(0)[1]
    near = [card for card in CARDS if _key(card) in _key(name)]
    facts = CARDS[max(near, key=len)] if near else CARDS["T4"]  # the slowest
    count = gpus or torch.cuda.device_count()
    return Machine(name, count, memory, facts.flops, facts.bandwidth, 0)


def _cpu(flops: float | None) -> Machine:
    """Describe this machine's memory and cores, the latter by a few products of matrices."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine("CPU", 0, memory, flops or _core_flops(), 10e9, 0)


def _core_flops(side: int = 1024, seconds: float = 0.3) -> float:
    """Time products of float32 matrices on all cores: the fastest, FLOP/s."""
    import torch

    matrix = torch.ones(side, side)
    begin, fastest = time.perf_counter(), float("inf")
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * side**3 / fastest
