"""Streamed replies of an endpoint, timed as they arrive. No torch here.

A request is sent once: a retry would be part of its time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from interlace.sources.endpoint import ODD, Endpoint

PREFIX, END = "data:", "[DONE]"  # of server-sent events
TEXTS = ("content", "reasoning_content", "reasoning")


@dataclass(frozen=True)
class ReplyTiming:
    """Times of one streamed reply, seconds from the request.

    Attributes:
        first: until its first token.
        last: until its last token.
        tokens: of the reply, as the server counts them, else pieces of text.
    """

    first: float
    last: float
    tokens: int


class Stream:
    """Streamed requests to an endpoint, which several threads may send at once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._client = httpx.Client(
            timeout=endpoint.timeout,
            limits=httpx.Limits(max_connections=None),
            headers={
                "Authorization": f"Bearer {endpoint.key}",
                "Content-Type": "application/json",
            },
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def body(self, request: Mapping[str, Any]) -> bytes:
        """Return what is sent for a request, made ahead so that it costs no time then."""
        return json.dumps({"model": self.endpoint.model, "stream": True, **request}).encode()

    def time(self, body: bytes) -> ReplyTiming:
        """Send a request once, and time its reply.

        Args:
            body: from `body`.

        Raises:
            NoReply: the endpoint is down, refuses this request, or answers something else.
            InputError: it refuses the key, knows no such model, or redirects.
        """
        url = f"{self.endpoint.url}/chat/completions"
        start = time.perf_counter()
        try:
            with self._client.stream("POST", url, content=body) as response:
                if not response.is_success:
                    words = " ".join(response.read().decode(errors="replace").split())
                    raise self.endpoint.refusal(response.status_code, words)
                timing = read_reply(response.iter_lines(), start)
        except httpx.TimeoutException:
            raise self.endpoint.failure("timeout") from None
        except httpx.TransportError:
            raise self.endpoint.failure("connection") from None
        except (httpx.HTTPError, *ODD):
            raise self.endpoint.failure("protocol") from None
        if timing is None:
            raise self.endpoint.failure("connection")
        return timing


def read_reply(lines: Iterable[str], start: float) -> ReplyTiming | None:
    """Read the events of a chat completion; `None`: it breaks off before its end.

    Args:
        lines: as they arrive.
        start: of the request, by `time.perf_counter`.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: not events of a chat completion.
    """
    arrivals: list[float] = []  # of pieces of the reply
    tokens, is_whole, has_events = 0, False, False
    for line in lines:
        now = time.perf_counter()
        if not line.startswith(PREFIX):
            continue
        has_events = True
        event = line.removeprefix(PREFIX).strip()
        if event == END:
            is_whole = True
            continue
        chunk = json.loads(event)
        tokens = (chunk.get("usage") or {}).get("completion_tokens") or tokens
        for choice in chunk["choices"]:
            is_end = bool(choice.get("finish_reason"))
            is_whole |= is_end
            if _holds_a_token(choice["delta"], is_end) or (is_end and not arrivals):
                arrivals.append(now - start)
    if not has_events:
        raise ValueError("no events")
    if not is_whole:
        return None
    return ReplyTiming(arrivals[0], arrivals[-1], int(tokens or len(arrivals)))


def _holds_a_token(delta: Mapping[str, Any], is_end: bool) -> bool:
    """Tell if a piece is more than the announcement of who speaks, or of the end.

    The text of a token may be empty: of a special one, or of a part of a character.
    """
    return any(delta.get(name) for name in TEXTS) or ("role" not in delta and not is_end)
