"""Programs that start as forks of a process that has imported the libraries: see fork_server."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOCKET = "FORK_SERVER"
NVIDIA = Path("/dev/nvidiactl")
PROGRAMS = {"python": "", "torchrun": "-m torch.distributed.run", "dvc": "-m dvc"}
SHIM = """#!{python} -IS
import array, json, os, signal, socket, sys
if "interlace.system.turns" in sys.argv:  # it looks for the process that started it
    os.execv("{python}", ["{python}", *sys.argv[1:]])
link = socket.socket(socket.AF_UNIX)
link.connect(os.environ["{variable}"])
name = os.path.basename(sys.argv[0])
text = json.dumps([[name, *sys.argv[1:]], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(link, [len(text).to_bytes(8, "big")], [0, 1, 2])
link.sendall(text)
answers = link.makefile("r")
child = int(answers.readline())
def relay(number, frame):
    try:
        os.kill(child, number)
    except ProcessLookupError:
        pass
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, relay)
code = int(answers.readline() or 1)
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code != 9 else None
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@dataclass
class Program:
    """A running program.

    Attributes:
        pid: its process, which leads a session of its own.
    """

    link: socket.socket
    pid: int
    log: Path
    pump: subprocess.Popen[bytes]

    def wait(self, seconds: float) -> int | None:
        """Return its exit code; `None` if it still runs after so many seconds, and is killed."""
        self.link.settimeout(seconds)
        try:
            answer = self.link.recv(32)
        except TimeoutError:
            self.kill(signal.SIGKILL, group=True)
            self.link.settimeout(20)
            with contextlib.suppress(OSError):
                self.link.recv(32)
            return None
        finally:
            self.link.settimeout(None)
        self.link.close()
        return int(answer or b"1")

    def kill(self, number: int, *, group: bool = False) -> None:
        """Send a signal to it, or to its process group."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def drain(self) -> None:
        """Wait until all that it printed is in the log; an orphan of its own may still print."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.pump.wait(2)

    @property
    def output(self) -> str:
        """All that it printed so far."""
        return self.log.read_text(errors="replace")


@dataclass
class Server:
    """The running server.

    Args:
        hash_seed: of all its programs.

    Attributes:
        folder: holds its socket, its shims and its log; a short path, since sockets need one.
        variables: of the environment, with which `python`, `torchrun` and `dvc` start there.
    """

    hash_seed: str = "0"
    folder: Path = field(init=False)
    variables: dict[str, str] = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="programs-"))
        self.socket, shims = self.folder / "s", self.folder / "bin"
        shims.mkdir()
        for name in PROGRAMS:
            shim = shims / name
            shim.write_text(SHIM.format(python=sys.executable, variable=SOCKET))
            shim.chmod(0o755)
        self.variables = _variables(shims) | {
            SOCKET: str(self.socket),
            "PYTHON_EXEC": str(shims / "python"),  # of torchrun's workers
            "MPLCONFIGDIR": str(self.folder / "matplotlib"),
        }
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fork_server", str(self.socket)],
                cwd=ROOT,
                env=os.environ | self.variables | {"PYTHONHASHSEED": self.hash_seed},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C ends it by the end of its input
            )
        while not self.socket.exists():
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.05)

    def start(self, command: Sequence[str], folder: Path, log: Path, **variables: str) -> Program:
        """Start a program: `python -m MODULE`, `torchrun ...` or `dvc ...`."""
        read_end, write_end = os.pipe()  # not a file: a limit on file sizes is not for messages
        copy = subprocess.Popen(["cat"], stdin=read_end, stdout=log.open("wb"))
        link = self._connect()
        environment = os.environ | self.variables | variables
        text = json.dumps([list(command), str(folder), environment]).encode()
        with open(os.devnull, "rb") as nothing:
            handles = [nothing.fileno(), write_end, write_end]
            socket.send_fds(link, [len(text).to_bytes(8, "big")], handles)
        link.sendall(text)
        os.close(read_end)
        os.close(write_end)
        pid = b""
        while not pid.endswith(b"\n"):
            pid += link.recv(1)
        return Program(link, int(pid), log, copy)

    def _connect(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        link.connect(str(self.socket))
        return link

    def close(self) -> None:
        """End it, with all that still runs."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait(30)


def _variables(programs: Path) -> dict[str, str]:
    """Return the variables of programs in a folder, and of all that they start."""
    paths = (
        ROOT,
        ROOT / "tests",
        ROOT / "data/demo",
        *filter(None, [os.environ.get("PYTHONPATH")]),
    )
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        **dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "DO_NOT_TRACK"), "1"),
        **{"OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1", "TRANSFORMERS_VERBOSITY": "error"},
        **{"TQDM_MININTERVAL": "5", "SHELL": "/bin/sh", "TOKENIZERS_PARALLELISM": "false"},
    }


@functools.cache
def shared() -> Server:
    """Start a server, once. It ends with this process."""
    return Server()


@functools.cache
def _fresh() -> dict[str, str]:
    """Return variables with which the same programs start as fresh processes."""
    folder = Path(tempfile.mkdtemp(prefix="programs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, words in PROGRAMS.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words} "$@"\n')
        (folder / name).chmod(0o755)
    return _variables(folder)


def environment() -> dict[str, str]:
    """Return an environment in which `python`, `torchrun` and `dvc` start as forks of `shared`.

    Where there is a GPU they are fresh processes: a fork could not use it.
    """
    return os.environ | (_fresh() if NVIDIA.exists() else shared().variables)
