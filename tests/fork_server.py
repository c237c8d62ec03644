"""A fork server: `python`, `torchrun` and `dvc` without their seconds of imports.

The server is one process that has imported the libraries. Each program is a fork of it: the same
code in a process of its own, which can be killed and limited as any other. Two things differ from
a fresh process: it runs the modules of this repository, and all forks hash strings alike.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

PRELOADED = (
    *("torch", "transformers", "datasets", "matplotlib.pyplot", "pandas", "yaml", "peft"),
    *("accelerate", "safetensors.torch", "torch.distributed.run", "dvc.cli.parser", "dvc.repo"),
    *("dvc.commands.repro", "dvc.commands.status", "dvc.commands.commit", "lmms_eval.evaluator"),
    *("transformers.models.qwen3_vl.modeling_qwen3_vl", "interlace.cli", "interlace.budget"),
    *("transformers.models.qwen3_vl.processing_qwen3_vl", "interlace.rounds"),
    *("transformers.models.qwen2_vl.image_processing_qwen2_vl", "torch.distributed.elastic"),
    *("interlace.measurements.sensitivity", "interlace.measurements.collect"),
    *("interlace.report.write", "interlace.evaluation.run.evaluate", "interlace.training.loop"),
)
LOADED_AT_FIRST_USE = ("torch._dynamo", "lmms_eval.tasks", "rich.progress", "dvc.repo.reproduce")


def serve(path: Path) -> None:
    """Import everything, then fork a process for each request until the parent ends.

    Args:
        path: the socket to listen on; its folder is removed at the end.
    """
    for name in (*PRELOADED, *LOADED_AT_FIRST_USE):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from forked_programs import NVIDIA

    if not NVIDIA.exists():  # it looks for a GPU when it is imported, which no fork could use then
        with contextlib.suppress(ImportError):
            os.environ["DS_ACCELERATOR"] = "cpu"
            importlib.import_module("deepspeed")
    from stages.digests import code_digests

    code_digests()  # remembered: the code stays as it is
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
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
                shutil.rmtree(path.parent, ignore_errors=True)
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
        sys.argv = rest
        sys.path.insert(0, str(Path(rest[0]).resolve().parent))
        runpy.run_path(rest[0], run_name="__main__")
        return 0
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


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
