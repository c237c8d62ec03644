"""The processes of a launch wait for each other for a while, and must see one folder."""

from __future__ import annotations

import json
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from interlace.errors import InputError
from interlace.system import joining

HOST = socket.gethostname()
FOLDER = Path("locks")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What torchrun's agent holds for this process, the first of three, in a folder of its own."""
    from torch.distributed import TCPStore

    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {"RANK": 0, "WORLD_SIZE": 3, "MASTER_ADDR": "127.0.0.1", "DVC_ROOT": "/first"}
    environment |= {"MASTER_PORT": server.port, "TORCHELASTIC_USE_AGENT_STORE": True}
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(joining, "PATIENCE", timedelta(seconds=0.5))
    monkeypatch.chdir(tmp_path)
    return server


def come(store: Any, rank: int, **record: Any) -> None:
    """Let another process join."""
    store.set(f"joined-{rank}", json.dumps({"host": f"node{rank}"} | record))


def test_the_first_process_waits_for_all_others(store: Any) -> None:
    come(store, 1, shared=True)
    come(store, 2, shared=True)
    joining.join_launch(FOLDER)
    assert json.loads(store.get("joined-0"))["root"] == "/first"
    assert not list(FOLDER.iterdir())


def test_a_process_that_never_joins_is_named(store: Any) -> None:
    come(store, 1, shared=True)
    there = f"there: 0 on {HOST}, 1 on node1; start the same command"
    with pytest.raises(InputError, match=rf"^process 2 of 3 did not join within 0\.5 s; {there}"):
        joining.join_launch(FOLDER)


def test_a_machine_that_does_not_share_the_folder_is_named(store: Any) -> None:
    come(store, 1, shared=True)
    come(store, 2, shared=False)
    with pytest.raises(InputError, match=rf"^process 2 of 3, on node2, does not see .* on {HOST}:"):
        joining.join_launch(FOLDER)


def test_other_processes_take_over_the_first_one_s_dvc_root(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("DVC_ROOT", "")
    FOLDER.mkdir()
    (FOLDER / "token").touch()
    come(store, 0, token="token", root="/first")
    joining.join_launch(FOLDER)
    assert joining.os.environ["DVC_ROOT"] == "/first"
    assert json.loads(store.get("joined-1")) == {"host": HOST, "shared": True}


def test_a_process_in_a_folder_of_its_own_ends(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    come(store, 0, token="token", root=None)
    with pytest.raises(
        InputError, match=r"^process 1 of 3, on .*, does not see .* on node0: start"
    ):
        joining.join_launch(FOLDER)
    assert json.loads(store.get("joined-1"))["shared"] is False


def test_without_the_first_process_the_others_end(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(InputError, match=rf"^process 0 of 3 did not .* there: 1 on {HOST}"):
        joining.join_launch(FOLDER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
        with pytest.raises(InputError, match=r"process 0 is not at 127\.0\.0\.1:\d+ .* reach"):
            joining.join_launch(FOLDER)


def test_a_rank_without_an_address_is_refused(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(InputError, match=r"WORLD_SIZE = 3 without MASTER_ADDR and MASTER_PORT"):
        joining.join_launch(FOLDER)


def test_srun_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(InputError, match=r"srun started the stage 2 times.*srun torchrun"):
        joining.join_launch(FOLDER)
    monkeypatch.setenv("SLURM_PTY_PORT", "1")  # a shell
    joining.join_launch(FOLDER)
