"""Work done ahead in worker processes: order, bounds, and what goes wrong in one."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from interlace.errors import InputError
from interlace.model import prefetch, shared_memory
from interlace.model.prefetch import Failure, one_ahead, prefetched


def ahead(
    work: Callable[[Any], Any], tasks: Any, *, workers: int = 2, seconds: float = 30
) -> Iterator[Any]:
    options: dict[str, Any] = {"name": lambda task: f"sample {task}", "setting": "measure.workers"}
    return prefetched(work, tasks, workers=workers, seconds=seconds, **options)


def tensor_of(number: int) -> dict[str, Any]:
    return {"number": number, "pixels": torch.full((number + 1, 50), float(number))}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    def work(number: int) -> dict[str, Any]:
        time.sleep(0.02 * (number % 3))
        return tensor_of(number)

    results = list(ahead(work, range(20), workers=workers))
    assert [result["number"] for result in results] == list(range(20))
    for number, result in enumerate(results):
        assert torch.equal(result["pixels"], tensor_of(number)["pixels"])
    assert not multiprocessing.active_children()


def test_no_task_is_no_result() -> None:
    assert list(ahead(tensor_of, [])) == []


def test_tasks_run_ahead_in_other_processes_within_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefetch, "AHEAD_BYTES", 5 * 4000)
    monkeypatch.setattr(prefetch, "free_memory", lambda: 0)
    drawn: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    def work(number: int) -> tuple[int, torch.Tensor]:
        return os.getpid(), torch.zeros(1000)

    results = ahead(work, tasks())
    pids = set()
    for taken in range(1, 101):
        pids.add(next(results)[0])
        assert taken <= len(drawn) <= taken + 5
    assert not list(results) and len(drawn) == 100
    assert len(pids) == 2 and os.getpid() not in pids


def test_workers_go_on_while_the_last_result_is_used(tmp_path: Path) -> None:
    """Also with tasks that fill a pipe, as an image does."""
    images = [number.to_bytes(1) * 2**20 for number in range(12)]

    def work(image: bytes) -> int:
        (tmp_path / str(image[0])).touch()
        return image[0]

    results = ahead(work, images)
    assert next(results) == 0
    deadline = time.monotonic() + 20
    while len(list(tmp_path.iterdir())) < len(images):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list(results) == list(range(1, 12))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_tasks_comes_after_the_results_before_it(workers: int) -> None:
    def tasks() -> Iterator[int]:
        yield from range(3)
        raise InputError("window 1 is damaged")

    results = ahead(tensor_of, tasks(), workers=workers)
    assert [next(results)["number"] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match=r"^window 1 is damaged$"):
        next(results)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_of_the_user_is_raised_as_it_is(workers: int) -> None:
    def work(number: int) -> int:
        if number == 3:
            raise InputError(f"sample {number} is damaged")
        return number

    results = ahead(work, range(9), workers=workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match=r"^sample 3 is damaged$"):
        next(results)
    assert not multiprocessing.active_children()


def test_other_errors_come_with_the_traceback_of_the_worker() -> None:
    with pytest.raises(Failure, match=r"in divide\n(?s:.*)ZeroDivisionError"):

        def divide(number: int) -> float:
            return 1 / number

        list(ahead(divide, range(3)))

    def exhaust(number: int) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        list(ahead(exhaust, range(3)))


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (signal.SIGKILL, "was killed by SIGKILL, as the system does when memory runs out;"),
        (signal.SIGTERM, "was killed by SIGTERM;"),
    ],
)
def test_a_killed_worker_is_named_by_what_it_read(number: signal.Signals, cause: str) -> None:
    def work(task: int) -> int:
        if task == 4:
            faulthandler.disable()  # pytest's
            os.kill(os.getpid(), number)
        return task

    results = ahead(work, range(9))
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(InputError, match=f"^sample 4: the process that read it {cause}") as error:
        next(results)
    assert error.match("set measure.workers lower, or 0")
    assert not multiprocessing.active_children()


def test_a_task_that_takes_too_long_is_named() -> None:
    def work(task: int) -> int:
        time.sleep(60 if task == 2 else 0)
        return task

    begin = time.monotonic()
    results = ahead(work, range(9), seconds=0.5)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(InputError, match=r"^sample 2: not read within 0.5 seconds; .* to 0 to w"):
        next(results)
    assert time.monotonic() - begin < 20
    assert not multiprocessing.active_children()


def test_workers_end_when_nobody_takes_their_results() -> None:
    results = ahead(tensor_of, range(1000))
    next(results)
    assert len(multiprocessing.active_children()) == 2
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def parent() -> None:
        def work(task: int) -> int:
            with pids.open("a") as file:
                file.write(f"{os.getpid()}\n")
            return task

        next(ahead(work, range(100)))
        os.kill(os.getpid(), signal.SIGKILL)

    if not (child := os.fork()):
        parent()
    os.waitpid(child, 0)
    workers = {int(line) for line in pids.read_text().splitlines()}
    assert len(workers) >= 1
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


def test_without_shared_memory_the_process_does_the_tasks_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_memory, "AVAILABLE", False)
    assert set(ahead(lambda _: os.getpid(), range(3))) == {os.getpid()}


def test_workers_open_images_beside_a_process_with_threads() -> None:
    """Locks of another thread must not be held for good in a forked worker."""
    image = Image.new("RGB", (200, 100), "red")
    stop = threading.Event()
    thread = threading.Thread(target=lambda: [image.rotate(5) for _ in iter(stop.is_set, True)])
    thread.start()
    torch.randn(500, 500) @ torch.randn(500, 500)

    def work(angle: int) -> torch.Tensor:
        turned = torch.frombuffer(bytearray(image.rotate(angle).tobytes()), dtype=torch.uint8)
        return turned.float() @ torch.ones(len(turned), 2)

    try:
        assert [tuple(result.shape) for result in ahead(work, range(10))] == [(2,)] * 10
    finally:
        stop.set()
        thread.join()


def test_without_workers_a_slow_task_is_named_and_waited_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(number: int) -> str:
        for _ in range(500):
            time.sleep(0.01)
            if error := capsys.readouterr().err:
                return error
        return ""

    (line,) = ahead(work, [7], workers=0, seconds=0.01)
    assert line == "sample 7: not read within 0.01 seconds; wait, or repair or remove it\n"


@pytest.mark.parametrize("on", [True, False])
def test_items_are_made_one_ahead_in_their_order(on: bool) -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number
        raise InputError("item 5 is damaged")

    ready = one_ahead(items(), on)
    assert next(ready) == 0
    deadline = time.monotonic() + 20
    while len(made) < 1 + on:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(made) == 1 + on
    assert [next(ready) for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(InputError, match="item 5"):
        next(ready)
