"""Loads: so many requests at once, none of which a server has in a cache."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from chat_server import SlowReply, chat_server
from models import row

from interlace.model.chat import chat_messages
from interlace.params.served import ServedModel
from interlace.sources.endpoint import Endpoint
from interlace.sources.streamed import ReplyTiming, Stream
from interlace.speed.load import (
    COLOURS,
    EXACT,
    Load,
    accepted_fields,
    numbered_requests,
    summarise_turn,
    time_turn,
    unlike,
)

REPLY = (
    b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "length"}]}\n'
    b'data: {"choices": [], "usage": {"completion_tokens": 1}}\ndata: [DONE]\n'
)


def stream(url: str) -> Stream:
    return Stream(Endpoint(ServedModel(url=url, model="m"), "ttft.endpoint.dense"))


@pytest.mark.parametrize("images", [0, 1, 2])
def test_requests_of_different_numbers_differ_from_the_first_image_or_word(images: int) -> None:
    messages = chat_messages(row(3, images=images))[:1]
    first, same, other = (unlike(messages, number) for number in (7, 7 + COLOURS, 2**16))
    assert first == same
    if images:
        parts = list(zip(first[0]["content"], other[0]["content"], strict=True))
        assert [part == others for part, others in parts] == [False] * images + [True]
        assert all(item["image"].getpixel((0, 0)) for item in messages[0]["content"][:images])
    else:
        assert (first[0]["content"][:3], other[0]["content"][:6]) == ("7. ", "65536.")


def test_an_image_keeps_all_but_its_first_pixel_and_the_row_is_left_alone() -> None:
    messages = chat_messages(row(3, images=1))[:1]
    image = messages[0]["content"][0]["image"]
    before = image.tobytes()
    one, two = (json.dumps(unlike(messages, number)) for number in (1, 2))
    assert one != two and image.tobytes() == before


def test_a_turn_has_every_conversation_and_as_many_requests_as_are_open_at_once() -> None:
    conversations = [chat_messages(row(seed, images=1))[:1] for seed in range(3)]
    counts = [
        len(numbered_requests(conversations, Load(count, 5), itertools.count()))
        for count in (1, 3, 8)
    ]
    assert counts == [3, 3, 8]
    requests = numbered_requests(conversations, Load(8, 5), itertools.count())
    assert len({json.dumps(request["messages"]) for request in requests}) == 8
    assert {request["max_tokens"] for request in requests} == {5}


@pytest.mark.parametrize("concurrency", [1, 3])
def test_so_many_requests_are_open_at_the_same_time(concurrency: int) -> None:
    slow = SlowReply(REPLY, seconds=0.05)
    with chat_server(slow) as server:
        requests = [{"messages": [{"role": "user", "content": str(i)}]} for i in range(6)]
        timing = time_turn(stream(server.url), requests, concurrency)
    assert slow.most == concurrency and len(server.requests) == 6
    assert timing.ttft >= 50 and timing.tokens == 1 and timing.decode is None
    assert timing.seconds_per_token >= 0.05 / concurrency


def test_a_turn_is_summarised_over_all_its_replies() -> None:
    replies = [ReplyTiming(1.0, 3.0, 5), ReplyTiming(2.0, 3.0, 3), ReplyTiming(5.0, 5.0, 1)]
    timing = summarise_turn(replies, seconds=18.0)
    assert (timing.ttft, timing.tokens, timing.seconds_per_token) == (2000.0, 3.0, 2.0)
    assert timing.decode == pytest.approx(1000 * (2.0 + 1.0) / (4 + 2))


def test_a_server_that_refuses_fields_of_others_is_asked_without_them() -> None:
    request = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    with chat_server(lambda content: REPLY) as server:
        assert accepted_fields(stream(server.url), request) == EXACT
        assert EXACT.items() <= server.requests[0].items()
    replies: list[Any] = [422, REPLY]
    with chat_server(lambda content: replies.pop(0)) as server:
        assert accepted_fields(stream(server.url), request) == {}
        assert not EXACT.keys() & server.requests[1].keys()
