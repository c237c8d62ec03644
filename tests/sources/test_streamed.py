"""Streamed replies: when a token comes, how many there are, and what a bad server becomes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from chat_server import chat_server

from interlace.errors import InputError
from interlace.params.served import ServedModel
from interlace.sources.endpoint import Endpoint, NoReply
from interlace.sources.streamed import ReplyTiming, Stream, read_reply

ROLE = {"delta": {"role": "assistant", "content": ""}, "finish_reason": None}
LAST = {"delta": {}, "finish_reason": "length"}
USAGE = {"choices": [], "usage": {"completion_tokens": 3}}


def piece(text: str | None, name: str = "content") -> dict[str, Any]:
    return {"delta": {name: text}, "finish_reason": None}


def events(*chunks: Any, end: bool = True) -> list[str]:
    """Lines of server-sent events; a choice becomes a chunk."""
    data = [chunk if "choices" in chunk else {"choices": [chunk]} for chunk in chunks]
    lines = [line for chunk in data for line in (f"data: {json.dumps(chunk)}", "")]
    return [*lines, *(["data: [DONE]"] if end else [])]


def read(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> ReplyTiming | None:
    """Read lines that come a second apart, counted from 1."""
    seconds: Iterator[float] = iter(range(1, 100))
    monkeypatch.setattr(time, "perf_counter", lambda: next(seconds))
    return read_reply([line for line in lines if line], 0.0)


@pytest.mark.parametrize(
    ("lines", "timing"),
    [
        (events(ROLE, piece("a"), piece("b"), LAST, USAGE), ReplyTiming(2, 3, 3)),
        (events(ROLE, piece(""), piece("b"), LAST), ReplyTiming(2, 3, 2)),
        (
            events(ROLE, {"delta": {"content": "a"}, "finish_reason": "length"}),
            ReplyTiming(2, 2, 1),
        ),
        (events(ROLE, LAST), ReplyTiming(2, 2, 1)),
        (events({"delta": {"role": "assistant", "content": "a"}}, LAST), ReplyTiming(1, 1, 1)),
        (events(ROLE, piece("a", "reasoning_content"), LAST, end=False), ReplyTiming(2, 2, 1)),
        ([": ping", *events(piece("a"))], ReplyTiming(2, 2, 1)),
        (events(ROLE, piece("a"), end=False), None),
    ],
    ids=["usage", "no text", "end", "nothing", "role too", "reasoning", "comment", "broken off"],
)
def test_a_token_is_a_piece_of_the_reply_with_or_without_text(
    lines: list[str], timing: ReplyTiming | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(lines, monkeypatch) == timing


def stream(url: str, timeout: float = 60.0) -> Stream:
    model = ServedModel(url=url, model="m")
    return Stream(Endpoint(model, "ttft.endpoint.dense", timeout=timeout))


def send(url: str, timeout: float = 60.0) -> ReplyTiming:
    made = stream(url, timeout)
    return made.time(made.body({"messages": [{"role": "user", "content": "Hello"}]}))


def test_a_request_names_the_model_and_asks_for_a_stream() -> None:
    reply = "\n".join(events(ROLE, piece("a"), LAST)).encode()
    with chat_server(lambda content: reply) as server:
        timing = send(server.url)
    assert 0 < timing.first <= timing.last and timing.tokens == 1
    (request,) = server.requests
    assert (request["model"], request["stream"]) == ("m", True)


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (None, r"^ttft\.endpoint\.dense\.url: .*breaks off its replies"),
        ("\n".join(events(ROLE, piece("a"), end=False)).encode(), "breaks off its replies"),
        (b"data: {", "not OpenAI's protocol"),
        (b'data: {"error": "out of memory"}', "not OpenAI's protocol"),
        (b"<html>", "not OpenAI's protocol"),
        (429, "answers 429"),
        (413, "answers 413 .*smaller images"),
    ],
    ids=["dropped", "half", "half JSON", "error", "page", "busy", "large"],
)
def test_a_reply_that_is_not_whole_is_named_and_not_asked_again(reply: Any, complaint: str) -> None:
    with chat_server(lambda content: reply) as server:
        with pytest.raises(NoReply, match=complaint) as caught:
            send(server.url)
        assert "\n" not in str(caught.value)
        assert len(server.requests) == 1


def test_a_refused_key_is_no_missing_reply() -> None:
    with (
        chat_server(lambda content: 401) as server,
        pytest.raises(InputError, match="the key is not accepted") as caught,
    ):
        send(server.url)
    assert not isinstance(caught.value, NoReply)


def test_a_server_that_hangs_or_is_down_is_named() -> None:
    with chat_server(lambda content: time.sleep(1.0)) as server:
        with pytest.raises(NoReply, match=r"gives no reply in 0\.2 seconds"):
            send(server.url, 0.2)
        assert len(server.requests) == 1
    with pytest.raises(NoReply, match="cannot be reached"):
        send("http://127.0.0.1:9/v1")
