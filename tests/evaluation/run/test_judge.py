from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from chat_server import chat_server

from interlace.errors import InputError
from interlace.evaluation.run.judge import Grader
from interlace.params.evaluating import Judge
from interlace.sources.endpoint import RETRIES


def grader(url: str, memory: Path | None = None) -> Grader:
    return Grader(Judge(url=url, model="m"), memory=memory)


def ask(url: str) -> str | None:
    return grader(url).ask("a", accepted=lambda reply: True)


def test_an_absent_endpoint_gives_no_judgement_after_retries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    assert ask("http://127.0.0.1:9") is None
    assert len(waits) == RETRIES


@pytest.mark.parametrize("reply", [400, b"not JSON", b"{}", b"[]", b'{"choices": []}', "", "maybe"])
def test_a_reply_without_a_verdict_is_neither_repeated_nor_cached(
    reply: Any, tmp_path: Path
) -> None:
    replies = [reply, "CORRECT"]
    with chat_server(lambda prompt: replies.pop(0)) as server:
        judge = grader(server.url, tmp_path)
        assert [judge.is_correct("q", "t", "a") for _ in range(3)] == [None, True, True]


@pytest.mark.parametrize(("status", "reason"), [(401, "key"), (403, "key"), (404, "model")])
def test_a_refusal_stops_the_run_in_one_line(status: int, reason: str) -> None:
    with (
        chat_server(lambda prompt: status) as server,
        pytest.raises(InputError, match=rf"^evaluate\.judge: .*{status}.*'m'.*{reason}.*$"),
    ):
        ask(server.url)


@pytest.mark.parametrize(
    ("reply", "correct"),
    [
        ("**Correct.**", True),
        ("Verdict: incorrect", False),
        ("CORRECT or INCORRECT", None),
        ("yes", None),
    ],
)
def test_a_verdict_is_one_of_two_words(reply: str, correct: bool | None) -> None:
    with chat_server(lambda prompt: reply) as server:
        assert grader(server.url).is_correct("What?", "four", "4") is correct
    assert all(text in server.prompts[0] for text in ("What?", "four", "\n4\n"))


def test_a_reply_nested_too_deeply_is_no_judgement() -> None:
    deep = b'{"choices": ' + b"[" * 200_000
    with chat_server(lambda prompt: deep) as server:
        assert ask(server.url) is None
