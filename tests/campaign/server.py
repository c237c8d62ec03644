"""A fork server: `python`, `torchrun` and `dvc` without their seconds of imports.

The server is one process that has imported the libraries. Each program is a fork of it: the same
code in a process of its own, which can be killed and limited as any other. A shim named `python`
stands first on PATH, so that dvc and torchrun start their stages here too.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOCKET = "CAMPAIGN_SOCKET"
PRELOADED = (
    *("torch", "transformers", "datasets", "matplotlib.pyplot", "pandas", "yaml", "peft"),
    *("accelerate", "safetensors.torch", "torch.distributed.run", "dvc.cli", "dvc.repo"),
    *("dvc.commands.repro", "dvc.commands.status", "dvc.commands.commit", "lmms_eval.evaluator"),
    *("transformers.models.qwen3_vl.modeling_qwen3_vl", "interlace.cli", "interlace.budget"),
    *("transformers.models.qwen3_vl.processing_qwen3_vl", "interlace.rounds"),
    *("transformers.models.qwen2_vl.image_processing_qwen2_vl", "torch.distributed.elastic"),
    *("interlace.measurements.sensitivity", "interlace.measurements.collect"),
    *("interlace.report.write", "interlace.evaluation.run.evaluate", "interlace.training.loop"),
)
LOADED_AT_FIRST_USE = ("torch._dynamo", "lmms_eval.tasks", "rich.progress", "dvc.repo.reproduce")
SHIM = """#!{python} -IS
import array, json, os, signal, socket, sys
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


def serve(path: str) -> None:
    """Import everything, then fork a process for each request until the parent ends."""
    for name in (*PRELOADED, *LOADED_AT_FIRST_USE):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from stages.digests import code_digests

    code_digests()  # remembered: the code stays as it is
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ, None)
    selector.register(sys.stdin, selectors.EVENT_READ, None)  # ends with the parent
    running: dict[int, tuple[socket.socket, int]] = {}  # pid -> its client and its descriptor
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                for pid in running:
                    _signal(pid, signal.SIGKILL)
                return
            if key.fileobj is listener:
                client = listener.accept()[0]
                pid = _start(client, [listener, *(link for link, _ in running.values())])
                descriptor = os.pidfd_open(pid)
                running[pid] = client, descriptor
                selector.register(descriptor, selectors.EVENT_READ, pid)
                selector.register(client, selectors.EVENT_READ, pid)
                with contextlib.suppress(OSError):
                    client.sendall(b"%d\n" % pid)
            elif key.data in running:
                client, descriptor = running[key.data]
                if key.fileobj is client:  # it was killed, or gave up: so does the program
                    _signal(key.data, signal.SIGKILL)
                    selector.unregister(client)
                    continue
                selector.unregister(descriptor)
                os.close(descriptor)
                code = os.waitstatus_to_exitcode(os.waitpid(key.data, 0)[1])
                with contextlib.suppress(KeyError, ValueError):
                    selector.unregister(client)
                with contextlib.suppress(OSError):
                    client.sendall(b"%d\n" % code)
                client.close()
                del running[key.data]


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _start(client: socket.socket, others: Sequence[socket.socket]) -> int:
    """Fork a process for a request; return its number."""
    head, descriptors, _, _ = socket.recv_fds(client, 8, 3)
    size, text = int.from_bytes(head, "big"), b""
    while len(text) < size:
        text += client.recv(size - len(text))
    arguments, folder, environment = json.loads(text)
    pid = os.fork()
    if pid:
        for descriptor in descriptors:
            os.close(descriptor)
        return pid
    code = 1
    try:
        for link in (*others, client):
            link.close()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.setsid()
        code = _run(arguments, folder, environment)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run(arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    """Run a program in this process; return its exit code."""
    import runpy

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.environ["CAMPAIGN_PARENT" if arguments[0] == "dvc" else "CAMPAIGN_SELF"] = str(os.getpid())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    program, *rest = [word for word in arguments if word != "-u"]
    try:
        if program == "dvc":
            from dvc.cli import main

            return int(main(rest))
        if program == "torchrun":
            import torch.distributed.run

            sys.argv = ["torchrun", *rest]
            torch.distributed.run.main(rest)
            return 0
        if rest[:1] == ["-m"]:
            from campaign.faults import prepare

            from interlace.system import interruption

            if rest[1].startswith("stages."):  # as `stages` does when it is imported
                interruption.install()
            sys.argv = rest[1:]
            prepare(rest[1])
            runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
            return 0
        raise SystemExit(f"the server runs modules only, not {arguments}")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:  # as Python ends: a traceback, then death by the signal
        traceback.print_exc()
        sys.stderr.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        return 130


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
        folder: holds its socket and its shims; a short path.
    """

    folder: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        shims = self.folder / "bin"
        shims.mkdir(parents=True, exist_ok=True)
        for name in ("python", "torchrun", "dvc"):
            shim = shims / name
            shim.write_text(SHIM.format(python=sys.executable, variable=SOCKET))
            shim.chmod(0o755)
        self.socket = self.folder / "s"
        self.socket.unlink(missing_ok=True)
        self.environment = os.environ | {
            SOCKET: str(self.socket),
            "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "data/demo"))),
            "PYTHON_EXEC": str(shims / "python"),
            "MPLCONFIGDIR": str(self.folder / "matplotlib"),
            **dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "DO_NOT_TRACK"), "1"),
            **{"OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1", "TRANSFORMERS_VERBOSITY": "error"},
            **{"TQDM_MININTERVAL": "5", "SHELL": "/bin/sh", "TOKENIZERS_PARALLELISM": "false"},
        }
        command = [sys.executable, "-m", "campaign.server", str(self.socket)]
        self.log = (self.folder / "server.log").open("wb")
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
        )
        while not self.socket.exists():
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "server.log").read_text())
            time.sleep(0.05)

    def start(self, command: Sequence[str], folder: Path, log: Path, **variables: str) -> Program:
        """Start a program: `python -m MODULE`, `torchrun ...` or `dvc ...`."""
        read_end, write_end = os.pipe()  # not a file: a limit on file sizes is not for messages
        copy = subprocess.Popen(["cat"], stdin=read_end, stdout=log.open("wb"))
        link = self._connect()
        text = json.dumps([list(command), str(folder), self.environment | variables]).encode()
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
        self.log.close()


if __name__ == "__main__":
    serve(sys.argv[1])
