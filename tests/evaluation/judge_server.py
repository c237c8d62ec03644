"""A small local server that speaks chat completions, for judges."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from local_server import serving

Reply = str | int | bytes  # what it says, an HTTP status, or a raw body


class JudgeServer:
    """Answers each request with what `reply` makes of the prompt."""

    def __init__(self, reply: Callable[[str], Reply]) -> None:
        self.reply = reply
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.url = ""


@contextmanager
def judge_server(reply: Callable[[str], Reply]) -> Iterator[JudgeServer]:
    served = JudgeServer(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append(body)
            served.keys.append(self.headers["Authorization"])
            said = served.reply(body["messages"][0]["content"])
            choice = {"choices": [{"message": {"content": said}}], "model": body["model"]}
            self.send_response(said if isinstance(said, int) else 200)
            if said == 429:
                self.send_header("Retry-After", "7")
            self.end_headers()
            self.wfile.write(said if isinstance(said, bytes) else json.dumps(choice).encode())

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler) as url:
        served.url = f"{url}/v1"
        yield served
