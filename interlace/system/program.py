"""A program that runs beside this process, and stops however this process ends.

A supervisor starts the program in a process group of its own, and holds one end of a pipe. When the
other end closes, by `stop` or because this process is gone, it stops the whole group. Ctrl-C in a
terminal reaches neither of them. This file also runs as the supervisor, with the standard library
alone.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
PAUSE = 0.1  # seconds between two looks
SIGNALS = {b"-": signal.SIGSTOP, b"+": signal.SIGCONT}  # by what the pipe says


class Program:
    """A running program.

    Args:
        command: the program and its arguments.
        log: file for all that it prints; an older one is replaced.
        environment: its environment variables.

    Raises:
        OSError: the log cannot be written.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", __file__, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )

    def exit_code(self, wait: float = 0.0) -> int | None:
        """Return the code with which the program ended; `None` if it runs on for `wait` seconds."""
        try:
            return self._supervisor.wait(wait)
        except subprocess.TimeoutExpired:
            return None

    def last_lines(self, count: int = 3) -> str:
        """Return the last lines of the log that hold words, in one line."""
        lines = self.log.read_bytes().decode(errors="replace").splitlines()
        return " | ".join([line.strip() for line in lines if line.strip()][-count:])

    def suspend(self) -> None:
        """Take the cores from the program and all its processes until `resume`.

        It is done a moment after the call, as is `resume`. A program that has ended stays so.
        """
        self._send(b"-")

    def resume(self) -> None:
        """Let a suspended program run on."""
        self._send(b"+")

    def _send(self, word: bytes) -> None:
        if self._supervisor.stdin is not None:
            with suppress(BrokenPipeError):
                self._supervisor.stdin.write(word)
                self._supervisor.stdin.flush()

    def stop(self) -> None:
        """Stop the program with all its processes, and wait until they are gone."""
        if self._supervisor.stdin is not None:
            with suppress(BrokenPipeError):
                self._supervisor.stdin.close()
        try:
            self._supervisor.wait(2 * GRACE)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()


def _supervise(command: Sequence[str]) -> int:
    """Run a command until it ends, or until standard input closes; return its exit code."""
    try:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        sys.stdout.write(f"{command[0]}: {error.strerror}\n")
        return 127
    while program.poll() is None:
        if not select.select([0], [], [], PAUSE)[0]:
            continue
        word = os.read(0, 1)
        if not word:
            break
        _signal_group(program, SIGNALS[word])
    _stop_group(program)
    return program.wait()


def _signal_group(program: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, number)


def _stop_group(program: subprocess.Popen[bytes]) -> None:
    """End the processes of a program's group, with force after a while."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal_group(program, number)
        _signal_group(program, signal.SIGCONT)  # a suspended process hears nothing else but SIGKILL
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline:
            program.poll()
            try:
                os.killpg(program.pid, 0)
            except (ProcessLookupError, PermissionError):
                return
            time.sleep(PAUSE)


if __name__ == "__main__":
    sys.exit(_supervise(sys.argv[1:]))
