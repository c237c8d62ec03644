"""Loads on a server: requests that are open at the same time, and their times. No torch here.

A request differs from all others in a pixel, or in its first words where it has no image. So a
server finds no prompt, no prepared image and no features of an image in a cache, and does the whole
work of each request.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from interlace.sources.endpoint import Message, NoReply, wire_messages
from interlace.sources.streamed import ReplyTiming, Stream

COLOURS = 2**24  # requests that one pixel tells apart
EXACT: dict[str, Any] = {  # of vLLM, SGLang, llama.cpp and others
    "stream_options": {"include_usage": True},
    "ignore_eos": True,
}


@dataclass(frozen=True)
class Load:
    """Requests to a server.

    Attributes:
        concurrency: requests that are open at the same time.
        new_tokens: length of each reply; 1: all the time is prefill.
    """

    concurrency: int
    new_tokens: int

    @property
    def kind(self) -> str:
        """The phase that bounds it: prefill or decode."""
        return "prefill" if self.new_tokens == 1 else "decode"

    @property
    def name(self) -> str:
        """Its name in the metrics."""
        return f"{self.kind}_{self.concurrency}"


@dataclass(frozen=True)
class TurnTiming:
    """Times of one turn of a server.

    Attributes:
        ttft: median of the requests, ms.
        decode: each token after the first, mean over all, ms; `None`: there were none.
        seconds_per_token: of the whole turn, all requests together.
        tokens: mean length of a reply.
    """

    ttft: float
    decode: float | None
    seconds_per_token: float
    tokens: float


def unlike(messages: Sequence[Mapping[str, Any]], number: int) -> list[Message]:
    """Return a conversation on the wire that differs from those of other numbers.

    Args:
        messages: from `model.chat.chat_messages`, ending with a user turn; they stay as they are.
        number: modulo `COLOURS`.
    """
    colour = tuple((number >> shift) % 256 for shift in (16, 8, 0))
    has_image = any(item["type"] == "image" for turn in messages for item in turn["content"])
    numbered = []
    for message in messages:
        content = [
            item | {"image": _with_pixel(item["image"], colour)}
            if item["type"] == "image"
            else item
            for item in message["content"]
        ]
        numbered.append({"role": message["role"], "content": content})
    if not has_image:
        numbered[0]["content"].insert(0, {"type": "text", "text": f"{number % COLOURS}. "})
    return wire_messages(numbered)


def _with_pixel(image: Any, colour: tuple[int, ...]) -> Any:
    """Return a copy of an open RGB image whose first pixel has a colour."""
    copy = image.copy()
    copy.putpixel((0, 0), colour)
    return copy


def numbered_requests(
    conversations: Sequence[Sequence[Mapping[str, Any]]], load: Load, numbers: Iterator[int]
) -> list[dict[str, Any]]:
    """Make the requests of one turn: each conversation, and as many as are to be open at once."""
    count = max(len(conversations), load.concurrency)
    return [
        {
            "messages": unlike(conversations[index % len(conversations)], next(numbers)),
            "max_tokens": load.new_tokens,
            "temperature": 0.0,
        }
        for index in range(count)
    ]


def accepted_fields(stream: Stream, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a server takes of `EXACT`; one that refuses it ends replies where they end.

    Raises:
        InputError: the server refuses the bare request as well.
    """
    try:
        stream.time(stream.body({**request, **EXACT}))
    except NoReply:
        stream.time(stream.body(request))
        return {}
    return EXACT


def time_turn(
    stream: Stream, requests: Sequence[Mapping[str, Any]], concurrency: int
) -> TurnTiming:
    """Send requests, so many at the same time, and wait for all replies.

    Raises:
        NoReply: one of them fails.
        InputError: the server refuses the key or the model.
    """
    bodies = [stream.body(request) for request in requests]
    with ThreadPoolExecutor(concurrency) as pool:
        start = time.perf_counter()
        futures = [pool.submit(stream.time, body) for body in bodies]
        try:
            replies = [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)
        seconds = time.perf_counter() - start
    return summarise_turn(replies, seconds)


def summarise_turn(replies: Sequence[ReplyTiming], seconds: float) -> TurnTiming:
    """Compute the times of a turn from those of its replies and of the whole."""
    tokens = sum(reply.tokens for reply in replies)
    later = tokens - len(replies)
    spans = sum(reply.last - reply.first for reply in replies)
    return TurnTiming(
        ttft=1000 * float(np.median([reply.first for reply in replies])),
        decode=1000 * spans / later if later else None,
        seconds_per_token=seconds / tokens,
        tokens=tokens / len(replies),
    )
