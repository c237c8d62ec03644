"""Work that is done ahead in processes of its own: images are opened while the model computes.

`collect`, `finetune` and `evaluate` encode their rows so. Results come in the order of the tasks.
Their tensors lie in shared memory, and so many tasks run ahead as that memory and a bound allow.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from multiprocessing import connection
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from interlace.errors import InputError
from interlace.model import shared_memory
from interlace.system.slow import SECONDS, slow_named

AHEAD = 128  # tasks that may be done before their results are taken
# of results that may lie in shared memory: so many, or a part of what is free
AHEAD_BYTES, FREE_PART = 2**30, 8
Task = TypeVar("Task")
Result = TypeVar("Result")


class Failure(Exception):
    """An error of a worker that is no user's mistake; the message is its traceback."""


@dataclass
class _Worker(Generic[Task]):
    """A process that does one task after another.

    Attributes:
        process: its handle.
        pipe: takes tasks, gives results.
        receiver: of the results.
    """

    process: Any
    pipe: connection.Connection
    receiver: shared_memory.Receiver


def automatic_workers(workers: int | None) -> int:
    """Return the number of workers; `None`: 4 beside a GPU, none where the CPU runs the model."""
    if workers is not None:
        return workers
    return min(4, os.cpu_count() or 1) if torch.cuda.is_available() else 0


def prefetched(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    workers: int,
    name: Callable[[Task], str],
    setting: str,
    seconds: float | None = None,
) -> Generator[Result, None, None]:
    """Do tasks in worker processes, ahead of time; yield the results in the order of the tasks.

    Workers are forked when the first result is taken, and end with the iterator.

    Args:
        work: makes a result of a task; the workers have all that it refers to.
        tasks: are drawn a few ahead, in a thread of this process.
        workers: processes; 0: this process does each task when its result is taken.
        name: says what a task is about, in messages.
        setting: parameter that holds `workers`, for messages.
        seconds: longest wait for a task; `None`: `SECONDS`. Without workers one line says so.

    Raises:
        InputError: `work` raised it; a worker was killed, or a task takes too long.
        Failure: `work` raised another error. An error of `tasks` is raised as it is.
    """
    if not workers or not shared_memory.AVAILABLE:
        for task in tasks:
            with slow_named(name(task), "wait, or repair or remove it", seconds or SECONDS):
                result = work(task)
            yield result
        return
    pool: _Pool[Task, Result] = _Pool(work, tasks, workers, name, setting, seconds or SECONDS)
    try:
        yield from pool.results()
    finally:
        pool.close()


def one_ahead(items: Iterator[Result], on: bool = True) -> Generator[Result, None, None]:
    """Yield items; each is made in a thread while the one before it is used.

    Copies of large tensors, as of a batch of images, take no time of the model's then.

    Args:
        items: are taken in one thread alone, in their order.
        on: False: items are made as they are taken.
    """
    if not on:
        yield from items
        return
    end = object()
    with ThreadPoolExecutor(1) as thread:
        following: Future[Any] = thread.submit(next, items, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, items, end)
            yield item


class _Pool(Generic[Task, Result]):
    """Workers that take tasks in turn, so that the next result is always that of a known worker.

    A thread hands tasks out: a task with an image fills a pipe, and waits until its worker is free.
    """

    def __init__(
        self,
        work: Callable[[Task], Result],
        tasks: Iterable[Task],
        workers: int,
        name: Callable[[Task], str],
        setting: str,
        seconds: float,
    ) -> None:
        self.name, self.setting, self.seconds = name, setting, seconds
        _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # one a piece
        self.workers: list[_Worker[Task]] = []
        self.pending: deque[Task] = deque()  # handed out, and not yet taken
        for _ in range(workers):
            self.workers.append(self._started(work))
        self.largest: int | None = None  # result so far, bytes
        self.changed = threading.Condition()  # of what follows, and of `pending`
        self.ended = False  # no task will follow
        self.error: BaseException | None = None  # of the tasks
        self.thread = threading.Thread(target=self._hand_out, args=[iter(tasks)], daemon=True)
        self.thread.start()

    def _started(self, work: Callable[[Task], Result]) -> _Worker[Task]:
        context = multiprocessing.get_context("fork")  # `work` need not be importable
        ours, theirs = context.Pipe()
        pipes = [worker.pipe for worker in self.workers]
        arguments = (work, theirs, [ours, *pipes])
        process = context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, shared_memory.Receiver(ours))

    def results(self) -> Iterator[Result]:
        """Yield the results in the order of the tasks."""
        for worker in cycle(self.workers):
            with self.changed:
                self.changed.wait_for(lambda: self.pending or self.ended)
                if not self.pending:
                    break
            result: Result = self._taken(worker)
            yield result
        if self.error:
            raise self.error

    def _hand_out(self, tasks: Iterator[Task]) -> None:
        """Send tasks to the workers in turn, as many ahead as there is room for."""
        try:
            for worker in cycle(self.workers):
                with self.changed:
                    self.changed.wait_for(lambda: self.ended or self._has_room())
                task = next(tasks)
                with self.changed:
                    if self.ended:
                        return
                    self.pending.append(task)
                    self.changed.notify_all()
                with suppress(OSError):  # it is dead: `_taken` says so
                    worker.pipe.send((task, worker.receiver.freed()))
        except StopIteration:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self._end()

    def _has_room(self) -> bool:
        """Return True if one more task may be handed out: each worker may have one."""
        if self.largest is None or len(self.pending) < len(self.workers):
            return len(self.pending) < len(self.workers)
        most_bytes = max(AHEAD_BYTES, free_memory() // FREE_PART)
        return len(self.pending) < AHEAD and self.largest * len(self.pending) < most_bytes

    def _end(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _taken(self, worker: _Worker[Task]) -> Any:
        """Wait for the next result of a worker."""
        ready = connection.wait([worker.pipe, worker.process.sentinel], self.seconds)
        if not ready:
            raise InputError(
                f"{self.name(self.pending[0])}: not read within {self.seconds:g} seconds; repair or"
                f" remove it, or set {self.setting} to 0 to wait for it"
            )
        try:
            if worker.pipe not in ready and not worker.pipe.poll():
                raise EOFError
            (error, value), size = worker.receiver.receive()
        except (OSError, EOFError):
            raise self._death(worker) from None
        with self.changed:
            self.pending.popleft()
            self.largest = max(self.largest or 0, size)
            self.changed.notify_all()
        if error is InputError:
            raise InputError(value)
        if error:
            raise error(value)
        return value

    def _death(self, worker: _Worker[Task]) -> InputError:
        """Return the error of a worker that is gone."""
        worker.process.join(1)
        code = worker.process.exitcode
        cause = f"ended with code {code}"
        if code is not None and code < 0:
            cause = f"was killed by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            cause += ", as the system does when memory runs out"
        return InputError(
            f"{self.name(self.pending[0])}: the process that read it {cause}; set {self.setting}"
            " lower, or 0, or cap the image's size"
        )

    def close(self) -> None:
        """End the workers, and the thread, which may wait for one of them."""
        self._end()
        for worker in self.workers:
            worker.process.kill()
        self.thread.join(self.seconds)
        for worker in self.workers:
            worker.process.join()
            worker.pipe.close()


def _serve(
    work: Callable[[Any], Any], pipe: connection.Connection, siblings: list[connection.Connection]
) -> None:
    """Do the tasks that come through a pipe, until it is closed."""
    for sibling in siblings:  # or a pipe would stay open when its owner is gone
        sibling.close()
    torch.set_num_threads(1)  # threads do not survive a fork
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # nor do theirs
    sender = shared_memory.Sender(pipe)
    while True:
        try:
            task, freed = pipe.recv()
        except (EOFError, OSError):
            return
        sender.reuse(freed)
        answer: tuple[type[Exception] | None, Any]
        try:
            answer = (None, work(task))
        except InputError as error:
            answer = (InputError, str(error))
        except MemoryError as error:
            answer = (MemoryError, str(error))
        except Exception:
            answer = (Failure, traceback.format_exc())
        try:
            sender.send(answer)
        except OSError:
            return


def free_memory() -> int:
    """Return the bytes of memory that programs may still take; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(1024 * int(x.split()[1]) for x in lines if x.startswith("MemAvailable:"))
