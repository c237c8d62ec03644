"""Servers of real models on this machine, while a test runs."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interlace.params.served import ServedModel
from interlace.sources.endpoint import Endpoint
from interlace.system.program import Program

COMMAND = f"{shlex.quote(sys.executable)} -m transformers.cli.transformers serve --dtype float32"


@contextmanager
def transformers_serve(folder: Path) -> Iterator[str]:
    """Run `transformers serve`, which loads any folder that it is asked for; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    command = [*shlex.split(COMMAND), "--host", "127.0.0.1", "--port", str(port)]
    program = Program(command, folder / "transformers.log", os.environ)
    try:
        endpoint = Endpoint(ServedModel(url=url, model="any"), "server")
        while not endpoint.is_ready():
            assert program.exit_code() is None, program.last_lines(20)
            time.sleep(0.2)
        yield url
    finally:
        program.stop()
