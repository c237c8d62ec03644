"""torchrun's failures in one line."""

from __future__ import annotations

import socket

import pytest
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from interlace.system import torchrun


def test_a_machine_that_never_joins_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = ["--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={address}"]
    options += ["--rdzv-conf=join_timeout=1", "--local-addr=node0"]
    assert torchrun.main([*options, "-m", "stages.collect"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"torchrun: 1 of 2 machines joined at {address} in time: node0; start")


@pytest.mark.parametrize(
    ("code", "way", "own_code"), [(-9, "by SIGKILL", 1), (2, "with exit code 2", 2)]
)
def test_a_process_that_fails_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    way: str,
    own_code: int,
) -> None:
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file="none")

    def fail(_: object) -> None:
        raise ChildFailedError("stages.collect", {3: failure})

    monkeypatch.setattr(run, "run", fail)
    assert torchrun.main(["-m", "stages.collect"]) == own_code
    host = socket.gethostname()
    output = capsys.readouterr().err
    assert output == f"torchrun: process 3 on {host} ended {way}; see its output above\n"
