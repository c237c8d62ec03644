"""The processes that a study's work is done in."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any


@contextmanager
def open_processes(count: int, **options: Any) -> Iterator[ProcessPoolExecutor]:
    """Open fresh processes; an error of the caller is not kept until all waiting work is done.

    Args:
        count: of the processes.
        options: further ones of `ProcessPoolExecutor`.
    """
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), **options) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
