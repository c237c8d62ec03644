"""A local server that speaks OpenAI's chat completions: a judge, or a served model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import local_server

Reply = str | int | bytes | dict[str, Any]  # a message, an HTTP status, a raw body, or JSON
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


def completion(text: str | None, reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": reason}]}


@contextmanager
def chat_server(
    reply_to: Callable[[Any], Reply],
    models: Sequence[str] | Reply = ("m",),
    *,
    broken_off: int = 0,
) -> Iterator[ChatServer]:
    """Serve, and answer each request with the reply to its last message.

    Args:
        reply_to: the content of that message -> the reply.
        models: that are listed, or the reply to the question for them.
        broken_off: the first so many replies end in the middle.
    """
    server, whole = ChatServer(), iter([False] * broken_off)

    class Handler(local_server.Handler):
        def answer(self, path: str) -> None:
            if path.endswith("/models"):
                listed = not isinstance(models, str | int | bytes | dict)
                self.send({"data": [{"id": name} for name in models]} if listed else models)
                return
            server.requests.append(json.loads(self.body))
            server.headers.append(self.headers)
            reply = reply_to(server.prompts[-1])
            if next(whole, True):
                self.send(completion(reply) if isinstance(reply, str) else reply)
            else:
                self.reply(HALF, 200, {"Content-Length": "1000"})
                self.close_connection = True

        def send(self, reply: Any) -> None:
            self.reply(
                b"" if isinstance(reply, int) else reply,
                reply if isinstance(reply, int) else 200,
                {"Content-Type": "application/json"},
            )

    with local_server.serving(Handler) as url:
        server.url = f"{url}/v1"
        yield server
