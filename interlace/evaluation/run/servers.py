"""Servers of one model: requests are spread over them. No torch here."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from interlace.errors import InputError
from interlace.printable import say
from interlace.sources.endpoint import Completion, Endpoint, Message, NoReply, Unreachable


class Servers:
    """Servers that several threads may ask at once; one that goes away is left out.

    Args:
        endpoints: clients of at least one server, all of the same model.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._open_requests = dict.fromkeys(endpoints, 0)  # of the servers that are there
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open_requests)

    def check_serve(self) -> None:
        """Check that all servers are there and serve the model.

        Raises:
            InputError: names the first that does not.
        """
        for endpoint in self._open_requests:
            endpoint.check_serves()

    @property
    def version(self) -> str | None:
        """The version that all servers tell; `None`: not told, or not the same."""
        versions = {endpoint.version for endpoint in self._open_requests}
        return versions.pop() if len(versions) == 1 else None

    def identify(self, identity: str) -> None:
        """Cache replies by what the servers are, not by their addresses: all answer alike."""
        for endpoint in self._open_requests:
            endpoint.identity = identity

    def complete(self, messages: Sequence[Message], **settings: Any) -> Completion:
        """Return the reply of the server with the fewest open requests, else of another.

        Args:
            messages: see `Endpoint.complete`.
            settings: see `Endpoint.complete`.

        Raises:
            NoReply: all servers fail at this request.
            InputError: no server is left, or one refuses the key or the model.
        """
        failures: dict[Endpoint, NoReply] = {}
        while endpoint := self._idlest(failures):
            try:
                with self._counted(endpoint):
                    return endpoint.complete(messages, **settings)
            except NoReply as error:
                failures[endpoint] = error
                if isinstance(error, Unreachable) and not endpoint.is_ready():
                    self._leave_out(endpoint, error)
        raise list(failures.values())[-1]

    def _idlest(self, tried: Container[Endpoint]) -> Endpoint | None:
        """Return the server with the fewest open requests among those not tried."""
        with self._lock:
            untried = [endpoint for endpoint in self._open_requests if endpoint not in tried]
            return min(untried, key=lambda endpoint: self._open_requests[endpoint], default=None)

    @contextmanager
    def _counted(self, endpoint: Endpoint) -> Iterator[None]:
        self._add(endpoint, 1)
        try:
            yield
        finally:
            self._add(endpoint, -1)

    def _add(self, endpoint: Endpoint, number: int) -> None:
        with self._lock:
            if endpoint in self._open_requests:
                self._open_requests[endpoint] += number

    def _leave_out(self, endpoint: Endpoint, error: Unreachable) -> None:
        """Ask a server no more.

        Raises:
            InputError: it is the last.
        """
        with self._lock:
            is_asked = endpoint in self._open_requests
            if is_asked and len(self._open_requests) > 1:
                del self._open_requests[endpoint]
                say(
                    f"warning: {endpoint.url} cannot be reached, and is asked no more;"
                    f" {len(self._open_requests)} left",
                    error=True,
                )
            elif is_asked:
                raise InputError(str(error))
