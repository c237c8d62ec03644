"""End with one line and no traceback when interrupted (Ctrl-C) or told to end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

GRACE = 2.0  # seconds that the main thread may stay in a library's code
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "told to end"}
last_steps: list[Callable[[], None]] = []  # called before the process ends
_pipe: tuple[int, int] | None = None
_owner: int | None = None  # the process that handles signals; not a child that was forked just now
_ending = threading.Lock()  # held by the thread that ends the process


def install() -> None:
    """End at once on SIGINT and SIGTERM: with one line, without child processes, code 128 + number.

    Nothing is unwound: what is unfinished is resumed or done again, as after SIGKILL. A signal that
    was ignored when the process started stays ignored.
    """
    global _owner, _pipe
    if threading.current_thread() is not threading.main_thread():
        return
    _owner = os.getpid()
    for number in WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    if _pipe is None:
        _pipe = os.pipe()
        os.set_blocking(_pipe[1], False)
        threading.Thread(target=_watch, args=(_pipe[0],), daemon=True).start()
    signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)


@contextmanager
def installed() -> Iterator[None]:
    """Handle signals as `install` does while the block runs."""
    handlers = {number: signal.getsignal(number) for number in WORDS}
    install()
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if signal.getsignal(signal.SIGTERM) is not _end:
                signal.set_wakeup_fd(-1)


def _end(number: int, _: FrameType | None = None) -> None:
    """Say why, end the children, take the last steps, and exit."""
    if os.getpid() != _owner:
        os._exit(128 + number)
    if threading.current_thread() is threading.main_thread():
        for signal_number in WORDS:  # a second Ctrl-C ends it without a word
            signal.signal(signal_number, _leave)
    if not _ending.acquire(blocking=False):
        return  # another thread is at it
    if os.environ.get("RANK", "0") == "0":
        _say(number)
    _end_children()
    for step in last_steps:
        step()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # it may be in the middle of a write
            stream.flush()
    os._exit(128 + number)


def _leave(number: int, _: FrameType | None) -> None:
    """Kill the children and exit, without a word."""
    for child in _children():
        child.kill()
    os._exit(128 + number)


def _say(number: int) -> None:
    word = WORDS[signal.Signals(number)]
    with suppress(OSError):
        os.write(2, f"\n{word}: finished work is kept; the same command resumes\n".encode())


def _children() -> list[Any]:
    multiprocessing = sys.modules.get("multiprocessing")
    return multiprocessing.active_children() if multiprocessing else []


def _end_children() -> None:
    """End the children; one that was forked just now may have lost the signal, and is killed."""
    children = _children()
    for child in children:
        child.terminate()
    deadline = time.monotonic() + GRACE / 4
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        child.kill()


def _watch(pipe: int) -> None:
    """End the process where its main thread does not come back from a library's code."""
    while True:
        number = os.read(pipe, 1)[0]
        if number in list(WORDS):
            time.sleep(GRACE)
            last_resort = threading.Timer(GRACE, os._exit, (128 + number,))
            last_resort.daemon = True
            last_resort.start()  # a stream may be stuck, here or in the main thread
            _end(number)


def _ignore_in_child() -> None:
    """Leave a forked child to its parent, which ends it."""
    if _pipe is not None and signal.getsignal(signal.SIGTERM) is _end:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)


os.register_at_fork(after_in_child=_ignore_in_child)
