"""The peak memory of this process so far.

`getrusage` is not enough: a child process starts with the peak of its parent.
"""

from __future__ import annotations

from pathlib import Path


def status_bytes(name: str) -> int:
    """Read a size of this process from the kernel: VmHWM (peak) or VmRSS (current)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024


def peak_mib() -> float:
    """Return the peak resident size, MiB."""
    return status_bytes("VmHWM") / 2**20
