"""One Click entrypoint per DVC stage: parse, validate, call, write."""

import signal
import sys

if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # `python -m` this package's NAME, whose imports take seconds: Ctrl-C ends them in silence
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from interlace.system import interruption

    interruption.install()
