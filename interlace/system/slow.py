"""One line about work that takes long, so that nobody waits without knowing for what."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from interlace.printable import say

SECONDS = 60.0  # longest wait for an image without a word


@contextmanager
def slow_named(name: str, way_out: str, seconds: float = SECONDS) -> Iterator[None]:
    """Say in one line, once, that the block takes longer than some seconds.

    Args:
        name: of what the block reads.
        way_out: what the user can do.
        seconds: longest time without the line.
    """
    line = f"{name}: not read within {seconds:g} seconds; {way_out}"
    timer = threading.Timer(seconds, say, (line,), {"error": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
