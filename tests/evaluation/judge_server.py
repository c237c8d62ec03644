"""A local server that speaks chat completions, for judges."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from local_server import serving

Reply = str | int | bytes  # a message, an HTTP status, or a raw body


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


def _completion(message: str | int) -> bytes:
    return json.dumps({"choices": [{"message": {"content": message}}]}).encode()


@contextmanager
def judge_server(reply: Callable[[str], Reply]) -> Iterator[JudgeServer]:
    server = JudgeServer(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.requests.append(request)
            server.headers.append(self.headers)
            reply = server.reply(request["messages"][0]["content"])
            body = reply if isinstance(reply, bytes) else _completion(reply)
            self.send_response(reply if isinstance(reply, int) else 200)
            self.send_header("Content-Type", "application/json")
            if reply == 429:
                self.send_header("Retry-After", "7")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler) as url:
        server.url = f"{url}/v1"
        yield server
