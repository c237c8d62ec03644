"""A local server that speaks chat completions, for judges."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import local_server

Reply = str | int | bytes  # a message, an HTTP status, or a raw body
WAIT: dict[Reply, dict[str, str]] = {429: {"Retry-After": "7"}}


class JudgeServer:
    """Records the requests; answers each with `reply` of its prompt."""

    def __init__(self, reply: Callable[[str], Reply]) -> None:
        self.reply = reply
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.url = ""

    @property
    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]


@contextmanager
def judge_server(reply: Callable[[str], Reply]) -> Iterator[JudgeServer]:
    server = JudgeServer(reply)

    class Handler(local_server.Handler):
        def answer(self, path: str) -> None:
            request = json.loads(self.body)
            server.requests.append(request)
            server.headers.append(self.headers)
            message = server.reply(request["messages"][0]["content"])
            completion = {"choices": [{"message": {"content": message}}]}
            self.reply(
                message if isinstance(message, bytes) else completion,
                message if isinstance(message, int) else 200,
                {"Content-Type": "application/json"} | WAIT.get(message, {}),
            )

    with local_server.serving(Handler) as url:
        server.url = f"{url}/v1"
        yield server
