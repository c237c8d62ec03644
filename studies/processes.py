"""The processes that a study's work is done in."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any


@contextmanager
def open_processes(
    count: int, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Open fresh processes; an error of the caller is not kept until all waiting work is done.

    Args:
        count: of the processes.
        initializer: called first in each process.
        initargs: its arguments.
    """
    with ProcessPoolExecutor(count, get_context("spawn"), _begin, (initializer, *initargs)) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin(initializer: Callable[..., None] | None, *arguments: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer:
        initializer(*arguments)


def _end_with_parent() -> None:
    """End this process once its parent has ended, killed or not."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
