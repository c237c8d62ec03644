"""One Click entrypoint per DVC stage: parse, validate, call, write."""

import os
import signal
import sys
from collections.abc import MutableMapping

SPINS = 2_000  # 0.05 to 0.1 ms: longer than the pauses between two operations


def bound_spinning(environment: MutableMapping[str, str]) -> None:
    """Let threads that wait for one another spin for less than the scheduler's time slice.

    GNU's OpenMP, which torch links, spins 300,000 times, about 10 ms, before a thread sleeps. On a
    busy machine the thread it waits for is not running, and the spinning keeps it from running. It
    reads these variables when torch is imported. They change no result. What the environment sets
    holds.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys():
        environment["GOMP_SPINCOUNT"] = str(SPINS)


bound_spinning(os.environ)

if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # `python -m` this package's NAME, whose imports take seconds: Ctrl-C ends them in silence
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from interlace.system import interruption

    interruption.install()
