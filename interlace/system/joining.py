"""The start of a launch: all its processes are there, on one machine or several, in one folder.

A launcher starts the processes of each machine on their own. DVC starts those of one machine alone.
"""

from __future__ import annotations

import functools
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from interlace.errors import InputError
from interlace.system.distributed import process_rank, world_size

PATIENCE = timedelta(minutes=10)  # with a process that is not there yet


def join_launch(folder: Path) -> None:
    """Let the first process wait for all others, and all check that they see one folder.

    The others take over the first one's DVC_ROOT, and do not wait for each other here.

    Args:
        folder: of the run, relative to the working folder.

    Raises:
        InputError: a process is not there in time, or sees another folder than the first one.
    """
    if world_size() == 1:
        _check_one_task()
        return
    store = _connected()
    if process_rank() > 0:
        _join_first(store, folder)
        return
    with _token(folder) as token:
        root = os.environ.get("DVC_ROOT")
        store.set(_key(0), json.dumps({"host": _host(), "token": token.name, "root": root}))
        _await_others(store)


def _check_one_task() -> None:
    """Refuse a single process that SLURM's srun started several times, unless in a terminal."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks != "1" and "SLURM_PTY_PORT" not in os.environ:
        raise InputError(
            f"srun started the stage {tasks} times, and no process knows of another; put torchrun"
            " between them: `srun torchrun --nnodes $SLURM_NNODES ... -m`, see docs/cluster.md"
        )


def _connected() -> Any:
    """Return the keys and values of the launch: its first process, or its launcher, holds them."""
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not (address and port):
        raise InputError(
            f"WORLD_SIZE = {world_size()} without MASTER_ADDR and MASTER_PORT: unset WORLD_SIZE and"
            " RANK, or start the stage by torchrun or deepspeed"
        )
    try:
        return _store(address, int(port))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"process {process_rank()} of {world_size()}, on {_host()}: process 0 is not at"
            f" {address}:{port} ({reason}); see its output, and let all machines reach this address"
        ) from None


@functools.cache  # the first process serves until it ends
def _store(address: str, port: int) -> Any:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    serves = process_rank() == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    return TCPStore(
        address,
        port,
        is_master=serves,
        timeout=PATIENCE,
        wait_for_workers=False,
        multi_tenant=True,
    )


def _join_first(store: Any, folder: Path) -> None:
    """Tell the first process that this one is there, and if it sees the folder."""
    rank = process_rank()
    try:
        first = json.loads(store.get(_key(0)))
    except RuntimeError:
        raise InputError(_absence([0], {rank: _host()})) from None
    shared = (folder / first["token"]).exists()
    store.set(_key(rank), json.dumps({"host": _host(), "shared": shared}))
    if not shared:
        raise InputError(_other_folder(rank, _host(), first["host"]))
    if first["root"]:
        os.environ["DVC_ROOT"] = first["root"]


def _await_others(store: Any) -> None:
    """Wait until all processes but this first one have said that they see its folder."""
    ranks = range(1, world_size())
    with suppress(RuntimeError):  # too late
        store.wait([_key(rank) for rank in ranks])
    records = {r: json.loads(store.get(_key(r))) for r in ranks if store.check([_key(r)])}
    if absent := [rank for rank in ranks if rank not in records]:
        hosts = {rank: record["host"] for rank, record in records.items()}
        raise InputError(_absence(absent, {0: _host()} | hosts))
    for rank, record in records.items():
        if not record["shared"]:
            raise InputError(_other_folder(rank, record["host"], _host()))


def _absence(absent: Sequence[int], hosts: Mapping[int, str]) -> str:
    """Say which processes are absent, and on which machines others are there."""
    by_host: dict[str, list[int]] = {}
    for rank, host in hosts.items():
        by_host.setdefault(host, []).append(rank)
    there = ", ".join(f"{_listed(ranks)} on {host}" for host, ranks in by_host.items())
    return (
        f"process {_listed(absent)} of {world_size()} did not join within"
        f" {PATIENCE.total_seconds():g} s; there: {there}; start the same command on all machines"
    )


def _listed(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (" ..." if len(ranks) > 8 else "")


def _other_folder(rank: int, host: str, first_host: str) -> str:
    return (
        f"process {rank} of {world_size()}, on {host}, does not see {Path.cwd()} of process 0, on"
        f" {first_host}: start it in the same folder, on a disk that all machines share"
    )


@contextmanager
def _token(folder: Path) -> Iterator[Path]:
    """Hold a file of a name that no other launch has."""
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / f"launch-{os.urandom(8).hex()}"
    token.touch()
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


def _key(rank: int) -> str:
    return f"joined-{rank}"


def _host() -> str:
    return socket.gethostname()
