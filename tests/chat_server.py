"""A local server that speaks OpenAI's chat completions: a judge, or a served model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import local_server

# a message, an HTTP status, a raw body, JSON, or None for a connection that is closed
Reply = str | int | bytes | dict[str, Any] | None
HALF = b'{"choices": [{"message": {"content": "a lo'


@dataclass
class ChatServer:
    """Records the requests for completions."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        return [request["messages"][-1]["content"] for request in self.requests]


@dataclass
class SlowReply:
    """Gives each request the same reply, after a while.

    Attributes:
        most: of the requests that were open at the same time.
    """

    reply: Reply
    seconds: float
    most: int = 0
    _open: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, content: Any) -> Reply:
        with self._lock:
            self._open += 1
            self.most = max(self.most, self._open)
        time.sleep(self.seconds)
        with self._lock:
            self._open -= 1
        return self.reply


def completion(text: str | None, reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": reason}]}


@contextmanager
def chat_server(
    reply_to: Callable[[Any], Reply],
    models: Sequence[str] | Reply = ("m",),
    *,
    broken_off: int = 0,
    headers: Mapping[str, str] | None = None,
    version: str | None = None,
) -> Iterator[ChatServer]:
    """Serve, and answer each request with the reply to its last message.

    Args:
        reply_to: the content of that message -> the reply.
        models: that are listed, or the reply to the question for them.
        broken_off: the first so many replies end in the middle.
        headers: further headers of all replies.
        version: of the server, as vLLM tells it.
    """
    server, whole = ChatServer(), iter([False] * broken_off)

    class Handler(local_server.Handler):
        def answer(self, path: str) -> None:
            if path == "/version":
                self.send({"version": version} if version else 404)
                return
            if path.endswith("/models"):
                listed = not isinstance(models, str | int | bytes | dict)
                self.send({"data": [{"id": name} for name in models]} if listed else models)
                return
            request = json.loads(self.body)
            server.requests.append(request)
            server.headers.append(self.headers)
            messages = request["messages"]
            reply = reply_to(messages[-1]["content"] if messages else "")
            if reply is None:
                self.close_connection = True
            elif next(whole, True):
                self.send(completion(reply) if isinstance(reply, str) else reply)
            else:
                self.reply(HALF, 200, {"Content-Length": "1000"})
                self.close_connection = True

        def send(self, reply: Any) -> None:
            self.reply(
                b"" if isinstance(reply, int) else reply,
                reply if isinstance(reply, int) else 200,
                {"Content-Type": "application/json"} | dict(headers or {}),
            )

    with local_server.serving(Handler) as url:
        server.url = f"{url}/v1"
        yield server
