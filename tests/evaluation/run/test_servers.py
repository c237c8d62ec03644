"""Requests are spread over servers; one that goes away or fails is no reason to lose an answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from chat_server import chat_server

from interlace.errors import InputError
from interlace.evaluation.run.served import ServedAdapter
from interlace.evaluation.run.servers import Servers
from interlace.params.served import ServedModel
from interlace.sources.endpoint import Endpoint, NoReply

DOWN = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def _few_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interlace.sources.endpoint.RETRIES", 1)
    monkeypatch.setattr("interlace.sources.retries.FIRST_WAIT", 0.01)


def servers(*urls: str, timeout: float = 60.0) -> Servers:
    names = ("urls", "models.dense")
    return Servers(
        [
            Endpoint(
                ServedModel(url=url, model="m"), "evaluate.endpoint", names=names, timeout=timeout
            )
            for url in urls
        ]
    )


def ask(served: Servers, text: str = "Hello") -> str:
    return served.complete([{"role": "user", "content": text}], max_tokens=5).text


def test_open_requests_are_spread_over_all_servers() -> None:
    def slow(content: Any) -> str:
        time.sleep(0.3)
        return "fine"

    with (
        chat_server(slow) as first,
        chat_server(slow) as second,
        ThreadPoolExecutor(4) as pool,
    ):
        served = servers(first.url, second.url)
        assert list(pool.map(lambda number: ask(served), range(4))) == ["fine"] * 4
    assert len(first.requests) == len(second.requests) == 2


def test_a_server_that_goes_away_is_asked_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    with chat_server(lambda content: "fine") as server:
        served = servers(DOWN, server.url)
        assert [ask(served), ask(served)] == ["fine", "fine"]
        assert len(served) == 1
    warning = capsys.readouterr().err
    assert warning == f"warning: {DOWN} cannot be reached, and is asked no more; 1 left\n"


def test_the_last_server_that_goes_away_stops_the_evaluation() -> None:
    with pytest.raises(InputError, match=r"^evaluate\.endpoint\.urls: .* cannot be") as caught:
        ask(servers(DOWN))
    assert not isinstance(caught.value, NoReply)  # that would count one answer as missing


@pytest.mark.parametrize(
    "reply", [400, 500, b"<html>", None], ids=["refused", "failed", "page", "dropped"]
)
def test_another_server_answers_what_one_fails_at(reply: Any) -> None:
    with (
        chat_server(lambda content: reply) as bad,
        chat_server(lambda content: "fine") as good,
    ):
        served = servers(bad.url, good.url)
        assert [ask(served) for _ in range(2)] == ["fine", "fine"]
        assert len(served) == 2  # it is still there
    assert len(good.requests) == 2


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (None, "breaks off its replies"),
        (500, "answers 500"),
        (413, "answers 413 .*; send smaller images"),
        (b"{}", "not OpenAI's protocol"),
    ],
    ids=["dropped", "failed", "too large", "odd"],
)
def test_a_server_that_fails_at_one_request_is_not_gone(reply: Any, reason: str) -> None:
    with (
        chat_server(lambda content: reply if content == "hard" else "fine") as server,
    ):
        served = servers(server.url)
        with pytest.raises(NoReply, match=reason):
            ask(served, "hard")
        assert ask(served) == "fine"


def test_a_reply_that_does_not_come_is_awaited_once_more_however_many_retries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hang(content: Any) -> str:
        time.sleep(1.5)
        return "late"

    monkeypatch.setattr("interlace.sources.endpoint.RETRIES", 7)
    with chat_server(hang) as server:
        with pytest.raises(NoReply, match=r"gives no reply in 0\.3 seconds"):
            ask(servers(server.url, timeout=0.3))
        assert len(server.requests) == 2


def test_a_refusal_for_the_moment_is_waited_out_as_long_as_the_server_asks() -> None:
    replies: list[Any] = [429, "fine"]
    with chat_server(lambda content: replies.pop(0), headers={"Retry-After": "1"}) as server:
        start = time.monotonic()
        assert ask(servers(server.url)) == "fine"
    assert time.monotonic() - start >= 1


def test_a_server_that_asks_to_be_left_alone_for_an_hour_is_not_asked_again() -> None:
    with chat_server(lambda content: 429, headers={"Retry-After": "3600"}) as server:
        with pytest.raises(NoReply, match="answers 429"):
            ask(servers(server.url))
        assert len(server.requests) == 1


def test_versions_are_told_where_all_servers_have_the_same() -> None:
    with (
        chat_server(lambda content: "Hi", version="1.0") as first,
        chat_server(lambda content: "Hi", version="1.0") as same,
        chat_server(lambda content: "Hi", version="2.0") as other,
        chat_server(lambda content: "Hi") as silent,
    ):
        assert servers(first.url, same.url).version == "1.0"
        assert servers(first.url, other.url).version is None
        assert servers(silent.url).version is None


def requests(n: int, **settings: Any) -> tuple[ServedAdapter, list[Any]]:
    """An adapter without servers, and requests of lmms-eval for it."""
    rows = [
        [{"role": "user", "content": [{"type": "text", "text": f"question {i}"}]}] for i in range(n)
    ]
    adapter = ServedAdapter(Servers([]), concurrency=2, max_failed=0)
    adapter.task_dict = {"task": {"test": rows}}
    values = {"max_new_tokens": 9, "until": []} | settings
    return adapter, [
        SimpleNamespace(args=(str(row), lambda row: row, values, i, "task", "test"))
        for i, row in enumerate(rows)
    ]


@pytest.fixture
def asked() -> Iterator[Any]:
    with chat_server(lambda content: f"re: {content}") as server:
        yield server


def test_greedy_requests_hold_no_settings_of_sampling(asked: Any) -> None:
    neutral = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "presence_penalty": 0.0}
    adapter, instances = requests(1, **neutral)
    adapter.servers = servers(asked.url)
    (batch,) = adapter.batches(instances)
    assert batch[0].text == "re: question 0"
    (request,) = asked.requests
    assert request.keys() == {"model", "messages", "temperature", "max_tokens"}
    assert (request["temperature"], request["max_tokens"]) == (0, 9)


def test_seeds_fit_31_bits(asked: Any) -> None:
    adapter, instances = requests(1, temperature=0.7, seed=2**62 + 5)
    adapter.servers = servers(asked.url)
    list(adapter.batches(instances))
    assert asked.requests[0]["seed"] == 5


def test_sampled_requests_hold_them_and_a_seed(asked: Any) -> None:
    sampling = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "presence_penalty": 1.5, "seed": 3}
    adapter, instances = requests(1, **sampling)
    adapter.servers = servers(asked.url)
    list(adapter.batches(instances))
    (request,) = asked.requests
    assert {name: request[name] for name in sampling} == sampling


def test_answers_end_before_a_stop_text_and_known_ones_are_not_asked(asked: Any) -> None:
    adapter, instances = requests(3, until=[" 1", "2"])
    adapter.servers = servers(asked.url)
    replies = {
        index: reply
        for batch in adapter.batches(instances, skip={0})
        for index, reply in batch.items()
    }
    assert {index: reply.text for index, reply in replies.items()} == {
        1: "re: question",
        2: "re: question ",
    }


def test_the_first_process_asks_for_all(asked: Any) -> None:
    adapter, instances = requests(3)
    adapter.servers = servers(asked.url)
    assert list(adapter.batches(instances, process=1, processes=2)) == []
    assert len(list(adapter.batches(instances, process=0, processes=2))) == 3
