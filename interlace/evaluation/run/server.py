"""A server that a stage starts on a checkpoint, waits for, and stops. No torch here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from interlace.errors import InputError
from interlace.params.served import ServedModel, Vllm
from interlace.printable import one_line
from interlace.sources.endpoint import Endpoint
from interlace.system.program import Program

FIELD = "evaluate.vllm"
HOST = "127.0.0.1"  # nobody else may ask it
PAUSE = 1.0  # seconds between two looks if it is ready
ENDS = 3.0  # seconds in which a server that fails may end
QUOTED = 400  # characters of its log in a message
LAUNCHER = re.compile(  # what torchrun sets, by which the server would join our processes
    r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_\w+"
)


def check_command(vllm: Vllm, field: str = FIELD) -> list[str]:
    """Return the words of the command.

    Args:
        vllm: the command.
        field: its section of params.yaml.

    Raises:
        InputError: it holds no words, or names no program.
    """
    try:
        words = [os.path.expanduser(word) for word in shlex.split(vllm.command)]
    except ValueError as error:
        raise InputError(f"{field}.command = {vllm.command!r}: {error}; close the quote") from None
    if not words:
        raise InputError(f"{field}.command: empty; name a program, e.g. vllm serve")
    if shutil.which(words[0]) is None:
        raise InputError(
            f"{field}.command = {vllm.command!r}: no such program: {words[0]}; install it, or name"
            " it by its path, e.g. /opt/vllm/bin/vllm serve"
        )
    return words


@contextmanager
def running(vllm: Vllm, checkpoint: Path, log: Path, field: str = FIELD) -> Iterator[ServedModel]:
    """Serve a checkpoint while the block runs; see `started`.

    Yields:
        The server's address, and the model's name there.
    """
    with started(vllm, checkpoint, log, field) as (served, _):
        yield served


@contextmanager
def started(
    vllm: Vllm, checkpoint: Path, log: Path, field: str = FIELD
) -> Iterator[tuple[ServedModel, Program]]:
    """Serve a checkpoint while the block runs.

    Args:
        vllm: the command, and how long to wait for it.
        checkpoint: the folder to serve.
        log: file for the server's output.
        field: the command's section of params.yaml.

    Yields:
        The server's address with the model's name there, and the program.

    Raises:
        InputError: it does not start, is not ready in time, or ends while the block runs.
    """
    folder, port = str(checkpoint.absolute()), _free_port()
    words = [*check_command(vllm, field), folder, "--host", HOST, "--port", str(port)]
    served = ServedModel(url=f"http://{HOST}:{port}/v1", model=folder)
    environment = {
        name: value for name, value in os.environ.items() if not LAUNCHER.fullmatch(name)
    }
    program = Program(words, log, environment)
    try:
        _wait(program, vllm, served, field)
        try:
            yield served, program
        except InputError:
            if program.exit_code(wait=ENDS) is not None:
                raise _failure(program, vllm, field, "ended while it was asked") from None
            raise
    finally:
        program.stop()


def _wait(program: Program, vllm: Vllm, served: ServedModel, field: str) -> None:
    """Wait until a server answers."""
    endpoint = Endpoint(served, field, names=("command", "command"))
    start = time.monotonic()
    with tqdm(
        total=vllm.ready_seconds, desc="starting the server", unit="s", leave=False
    ) as progress:
        while (code := program.exit_code()) is None:
            if endpoint.is_ready():
                return
            seconds = time.monotonic() - start
            if seconds > vllm.ready_seconds:
                reason = f"is not ready after {field}.ready_seconds = {vllm.ready_seconds}"
                raise _failure(program, vllm, field, reason)
            progress.update(int(seconds) - progress.n)
            time.sleep(PAUSE)
    raise _failure(program, vllm, field, f"ended with code {code} before it was ready")


def _failure(program: Program, vllm: Vllm, field: str, reason: str) -> InputError:
    lines = one_line(program.last_lines()[-QUOTED:]) or "it printed nothing"
    return InputError(
        f"{field}.command = {vllm.command!r}: {reason}: {lines}; mend the command (its log:"
        f" {program.log}), and run it again: finished answers are kept"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def command_name(command: str) -> str:
    """Return a command without the folders of this machine, as a result may hold it."""
    return shlex.join(
        "=".join(Path(part).name if part[:1] in ("/", "~") else part for part in word.split("="))
        for word in shlex.split(command)
    )
