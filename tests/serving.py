"""Programs that serve a model on this machine: of transformers, and a stand-in for vLLM's."""

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


def stand_in(mode: str) -> str:
    """Return the command of a program that answers each question with 42, and loads no model.

    Args:
        mode: `ready`; `dies`, `busy` or `never` before it is ready; `ends` at the first question.
    """
    return shlex.join([sys.executable, str(Path(__file__).with_name("stand_in_server.py")), mode])


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
