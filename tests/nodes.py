"""Two nodes on this machine: torchrun agents of one process each, which meet as on two machines."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from typing import Any

from forked_programs import environment


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start `python` or `torchrun` with arguments; options are those of `Popen`."""
    return subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def start_nodes(
    command: Sequence[str], nodes: int = 2, **options: Any
) -> list[subprocess.Popen[str]]:
    """Start a script with arguments on some nodes; options are those of `Popen`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    torchrun = [
        *("torchrun", f"--nnodes={nodes}", "--nproc-per-node=1", "--local-addr=127.0.0.1"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={address}", "--rdzv-conf=join_timeout=300"),
    ]
    return [start([*torchrun, *command], **options) for _ in range(nodes)]


def ended(nodes: Sequence[subprocess.Popen[str]], seconds: float = 600) -> list[tuple[int, str]]:
    """Wait until all nodes have ended; return their exit codes and what they printed."""
    try:
        outputs = [node.communicate(timeout=seconds)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    return [(node.returncode, output) for node, output in zip(nodes, outputs, strict=True)]
