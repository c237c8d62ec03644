"""A local server that speaks chat completions, for judges."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import local_server

Reply = str | int | bytes  # a message, an HTTP status, or a raw body


@dataclass
class JudgeServer:
    """Records the requests."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]


@contextmanager
def judge_server(reply_to: Callable[[str], Reply]) -> Iterator[JudgeServer]:
    """Serve, and answer each request with the reply to its prompt."""
    server = JudgeServer()

    class Handler(local_server.Handler):
        def answer(self, path: str) -> None:
            server.requests.append(json.loads(self.body))
            server.headers.append(self.headers)
            message = reply_to(server.prompts[-1])
            completion = {"choices": [{"message": {"content": message}}]}
            self.reply(
                message if isinstance(message, bytes) else completion,
                message if isinstance(message, int) else 200,
                {"Content-Type": "application/json"},
            )

    with local_server.serving(Handler) as url:
        server.url = f"{url}/v1"
        yield server
