"""A server is started, waited for and stopped, with all its processes, however the stage ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from serving import stand_in

from interlace.errors import InputError
from interlace.evaluation.run.server import command_name, running
from interlace.params.served import Vllm
from interlace.sources.endpoint import Endpoint, NoReply


def vllm(mode: str, ready_seconds: int = 60) -> Vllm:
    return Vllm(command=stand_in(mode), ready_seconds=ready_seconds)


@pytest.fixture
def pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in writes its process and its child."""
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    monkeypatch.setattr("interlace.evaluation.run.server.PAUSE", 0.05)
    return tmp_path / "pids"


def running_processes(pids: Path) -> list[int]:
    """The processes that are still there; zombies are not."""
    numbers = map(int, pids.read_text().split())
    stats = {number: Path(f"/proc/{number}/stat") for number in numbers}
    return [
        number
        for number, stat in stats.items()
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    ]


def test_a_server_is_ready_in_the_block_and_gone_after_it(
    pids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    with running(vllm("ready"), tmp_path / "model", tmp_path / "a.log") as served:
        endpoint = Endpoint(served, "evaluate.vllm")
        endpoint.check_serves()
        assert endpoint.version == "1.2.3"
        assert endpoint.complete([], max_tokens=1).text == "42"
        assert len(running_processes(pids)) == 2
    assert not running_processes(pids)
    log = (tmp_path / "a.log").read_text()
    assert log.startswith(f"loading {tmp_path / 'model'} False\n")  # nothing of a launch


@pytest.mark.parametrize(
    ("mode", "complaint"),
    [
        ("dies", r"ended with code 3 before it was ready: .*no such architecture \| see above;"),
        ("busy", r"ended with code 1 before it was ready: .*Address already in use;"),
        ("never", r"is not ready after evaluate\.vllm\.ready_seconds = 1: loading .*;"),
    ],
)
def test_a_program_that_does_not_serve_is_named_with_its_last_lines(
    pids: Path, tmp_path: Path, mode: str, complaint: str
) -> None:
    with (
        pytest.raises(InputError, match=rf"^evaluate\.vllm\.command = .*{complaint}") as caught,
        running(vllm(mode, 1 if mode == "never" else 60), tmp_path, tmp_path / "a.log"),
    ):
        raise AssertionError("served")
    assert "\n" not in str(caught.value) and f"(its log: {tmp_path / 'a.log'})" in str(caught.value)


def test_a_server_that_ends_while_it_is_asked_is_named_with_its_last_lines(
    pids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interlace.sources.endpoint.RETRIES", 1)
    with (
        pytest.raises(
            InputError, match=r"ended while it was asked: .*out of memory; mend"
        ) as caught,
        running(vllm("ends"), tmp_path, tmp_path / "a.log") as served,
    ):
        Endpoint(served, "evaluate.vllm").complete([], max_tokens=1)
    assert not isinstance(caught.value, NoReply)
    assert not running_processes(pids)


STAGE = """
import signal, sys, time
from pathlib import Path
from interlace.evaluation.run.server import running
from interlace.params.served import Vllm
from interlace.system import interruption
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
with interruption.installed(), running(Vllm(command=sys.argv[1]), Path("m"), Path(sys.argv[2])):
    print("ready", flush=True)
    while True:  # a read would miss a signal that comes just before it
        time.sleep(0.05)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_server_is_stopped_when_its_stage_is_interrupted_or_killed(
    pids: Path, tmp_path: Path, number: int
) -> None:
    command = [sys.executable, "-c", STAGE, stand_in("ready"), str(tmp_path / "a.log")]
    stage = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)
    assert stage.stdout is not None and stage.stdout.readline() == b"ready\n"
    assert len(running_processes(pids)) == 2
    stage.send_signal(number)
    stage.wait(60)
    deadline = time.monotonic() + 60
    while running_processes(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running_processes(pids)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("vllm serve", "vllm serve"),
        ("~/vllm/bin/vllm serve", "vllm serve"),
        ("/opt/vllm/bin/vllm serve --max-model-len 4096", "vllm serve --max-model-len 4096"),
        ("uv run --with vllm vllm serve --x=/a/b.json", "uv run --with vllm vllm serve --x=b.json"),
    ],
)
def test_a_command_is_named_without_the_folders_of_this_machine(command: str, name: str) -> None:
    assert command_name(command) == name
