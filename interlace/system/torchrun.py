"""torchrun whose failures are one line: `python -m interlace.system.torchrun OPTIONS -m MODULE`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from interlace.errors import complaint
from interlace.printable import one_line, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run torchrun; return its exit code, that of the process which failed first."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else stack traces of lost connections
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError, RendezvousTimeoutError

    options = run.parse_args(arguments)  # type: ignore[no-untyped-call]
    with _participants_recorded() as participants:
        try:
            run.run(options)  # type: ignore[no-untyped-call]
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            return _failed(_end(rank, failure.exitcode), max(failure.exitcode, 1))
        except RendezvousTimeoutError:
            return _failed(
                f"{len(participants)} of {options.nnodes} machines joined at"
                f" {options.rdzv_endpoint} in time: {', '.join(participants)}; start the same"
                " command on all of them, with the same --rdzv-id"
            )
        except RendezvousError as error:
            reason = complaint(error.__cause__ or error)
            return _failed(f"no rendezvous at {options.rdzv_endpoint}: {reason}")
        except SignalException as error:
            return 128 + int(error.sigval)
    return 0


def _end(rank: int, code: int) -> str:
    """Say how a process ended."""
    way = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return f"process {rank} on {os.uname().nodename} ended {way}; see its output above"


def _failed(sentence: str, code: int = 2) -> int:
    say(one_line(f"torchrun: {sentence}"), error=True)
    return code


@contextmanager
def _participants_recorded() -> Iterator[list[str]]:
    """Yield a list of the machines that joined last; torchrun forgets them when it is too late."""
    from torch.distributed.elastic.rendezvous import dynamic_rendezvous

    machines: list[str] = []
    holder = dynamic_rendezvous._BackendRendezvousStateHolder
    sync = holder.sync

    def recording(self: Any) -> Any:
        changed = sync(self)
        if self.state.participants:
            machines[:] = sorted(node.addr for node in self.state.participants)
        return changed

    holder.sync = recording  # type: ignore[method-assign]
    try:
        yield machines
    finally:
        holder.sync = sync  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())
