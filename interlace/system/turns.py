"""Turns of runs in one folder: a run waits until those that began before it have ended.

DVC refuses a run beside another one in the same folder. `python -m interlace.system.turns` is the
pipeline's first stage: it reads and writes nothing that DVC guards, so a second run waits in it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from interlace.printable import say
from interlace.system import interruption
from interlace.system.locks import PAUSE, locked
from interlace.system.outputs import refusals_named, write_json
from interlace.system.scratch import folder_key, scratch_root

SHELLS = ("sh", "ash", "bash", "dash", "fish", "ksh", "zsh")  # in which DVC starts a command


@dataclass(frozen=True)
class RunProcess:
    """A process that runs the pipeline, on this machine.

    Attributes:
        pid: its number.
        created: when it began, seconds since 1970; numbers are used again.
        command: as it was typed; a process may change it.
    """

    pid: int
    created: float
    command: str = field(compare=False)

    @classmethod
    def of(cls, pid: int) -> RunProcess:
        """Describe a process that lives."""
        import psutil

        process = psutil.Process(pid)
        return cls(pid, process.create_time(), " ".join(process.cmdline())[-80:])

    @property
    def lives(self) -> bool:
        """True until the process ends."""
        import psutil

        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 2  # as far as clocks are set
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        return False

    def __str__(self) -> str:
        """Name it, for who waits."""
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.created))
        return f"process {self.pid} ({self.command}), at work since {since}"


def join_line(file: Path, run: RunProcess) -> list[RunProcess]:
    """Add a run to the line of those in a folder, and return those before it that still live."""
    with locked(file.with_suffix(".lock"), lambda _: None):
        line = [process for process in _read(file) if process.lives]
        if run not in line:
            line.append(run)
        write_json(file, [asdict(process) for process in line])
    return line[: line.index(run)]


def _read(file: Path) -> list[RunProcess]:
    try:
        return [RunProcess(**fields) for fields in json.loads(file.read_bytes())]
    except (FileNotFoundError, ValueError, TypeError):  # nobody came before, or it is torn
        return []


def wait_for_turn(file: Path, run: RunProcess, tell: Callable[[str], object]) -> None:
    """Wait until all runs that joined the line earlier have ended; tell once which they are."""
    earlier = join_line(file, run)
    if earlier:
        tell(f"wait: waits for {'; '.join(map(str, earlier))}; Ctrl-C ends the wait")
    for process in earlier:
        while process.lives:
            time.sleep(PAUSE)


def _run_above() -> int:
    """Return the process that started this stage: DVC, above the shell that it uses."""
    import psutil

    process = psutil.Process().parent()
    while process is not None and process.name() in SHELLS and process.parent() is not None:
        process = process.parent()
    return process.pid if process else os.getppid()


def main() -> None:
    """Wait for earlier runs in this folder; return at once where DVC did not start this."""
    interruption.install()
    if "DVC_STAGE" not in os.environ:
        return
    with refusals_named():
        file = scratch_root() / f"runs/{folder_key()}.json"
        wait_for_turn(file, RunProcess.of(_run_above()), lambda line: say(line, error=True))


if __name__ == "__main__":
    main()
