"""The most memory that this process has held so far.

`getrusage` will not do: what it says of a process that was started by a larger one is at least the
size that the larger one had.
"""

from __future__ import annotations

from pathlib import Path


def status_bytes(name: str) -> int:
    """A size of this process as the kernel counts it: VmHWM, the peak; VmRSS, what is held now."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024


def peak_mib() -> float:
    """The peak resident size, MiB."""
    return status_bytes("VmHWM") / 2**20
