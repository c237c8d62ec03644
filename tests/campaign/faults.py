"""Faults inside of a stage, aimed at its file-system events: a signal, a full disk, a count.

An audit hook sees each file that Python opens to write and each folder made, moved or removed
inside of the project. Files that Rust or C++ write lie between two such events; the limit on file
sizes holds for them too.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

VARIABLE = "CAMPAIGN_FAULT"
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
GROWTH = ("open", "os.mkdir", "os.rename", "os.link")  # what a full disk refuses
EVENTS = (*GROWTH, "os.remove", "os.rmdir", "os.truncate")


class Fault(BaseModel):
    """A fault in a stage.

    Attributes:
        stage: whose process it happens in, e.g. `stages.collect`.
        action: `signal` sends one, `full` refuses all writes from then on, `small` limits the size
            of files, `later` sends one after a while, `count` only counts.
        at: the number of the event at which it happens, from 1; of `small` the limit, bytes; of
            `later` the time, milliseconds.
        number: of the signal.
        victim: `self`, `group`, `dvc`, or `session`: dvc and all under it.
        rank: of the worker; empty: any.
        counter: file that the number of events is written to when the stage ends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    action: str
    at: int = 0
    number: int = 0
    victim: str = "self"
    rank: str = ""
    counter: str = ""

    def variables(self) -> dict[str, str]:
        """Return the environment variable that plants it."""
        return {VARIABLE: self.model_dump_json()}


def prepare(module: str) -> None:
    """Plant the fault that the environment asks for in this process, if it is for this stage."""
    if plant := os.environ.get("CAMPAIGN_PLANTED"):
        from campaign import planted

        getattr(planted, plant)()
    text = os.environ.get(VARIABLE)
    if not text:
        return
    fault = Fault.model_validate_json(text)
    wanted = fault.rank in ("", os.environ.get("RANK", "0"))
    if fault.stage not in ("*", module) or not wanted:
        return
    if fault.action == "small":
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.at, resource.RLIM_INFINITY))
        return
    if fault.action == "later":
        timer = threading.Timer(fault.at / 1000, os.kill, (os.getpid(), fault.number))
        timer.daemon = True
        timer.start()
        return
    sys.addaudithook(_Hook(fault, module))


def stage_name(module: str, arguments: list[str]) -> str:
    """The stage's name in dvc.yaml."""
    name = module.removeprefix("stages.").removesuffix("_layers")
    return f"{name}@{arguments[-1]}" if name == "evaluate" else name


class _Hook:
    """Counts events, and strikes at one of them."""

    def __init__(self, fault: Fault, module: str) -> None:
        self.fault, self.busy = fault, False
        self.stage = os.environ.get("DVC_STAGE") or stage_name(module, sys.argv[1:])
        self.events = self.growth = 0
        self.begin = time.monotonic()
        self.folders = tuple({os.getcwd(), os.environ.get("DVC_ROOT") or os.getcwd()})

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or self.busy:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES):
            return
        path = arguments[0]
        if isinstance(path, int) or not self._inside(os.fsdecode(path)):
            return
        self.events += 1
        self.growth += event in GROWTH
        if self.fault.action == "count":
            self.write()
        elif self.fault.action == "full" and event in GROWTH and self.growth >= self.fault.at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(path))
        elif self.fault.action == "signal" and self.events == self.fault.at:
            self._strike()

    def _inside(self, path: str) -> bool:
        return not os.path.isabs(path) or path.startswith(self.folders)

    def _strike(self) -> None:
        number, dvc = signal.Signals(self.fault.number), int(os.environ.get("CAMPAIGN_PARENT", 0))
        with contextlib.suppress(ProcessLookupError):
            if self.fault.victim == "dvc":
                os.kill(dvc, number)
            elif self.fault.victim == "session":  # dvc's group: dvc, its shell, the stage
                os.killpg(dvc, number)
                os.kill(os.getpid(), number)
            elif self.fault.victim == "group":
                os.killpg(os.getpid(), number)
            else:
                os.kill(os.getpid(), number)

    def write(self) -> None:
        """Write down the counts so far."""
        if not self.fault.counter:
            return
        self.busy = True
        try:
            counts = {"events": self.events, "growth": self.growth}
            counts["seconds"] = time.monotonic() - self.begin
            Path(self.fault.counter, f"{self.stage}.json").write_text(json.dumps(counts))
        finally:
            self.busy = False
