from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from evaluation.judge_server import judge_server

from interlace.errors import InputError
from interlace.evaluation.run.judge import RETRIES, Endpoint, check_judge
from interlace.params.evaluating import Judge


def ask(url: str, prompt: str = "a", *, memory: Path | None = None, **judge: Any) -> str | None:
    settings = Judge(**({"url": url, "model": "m"} | judge))
    return Endpoint(settings, memory=memory).ask(prompt, accepted=lambda reply: True)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have slept."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def test_a_reply_is_cached_by_prompt_and_model(tmp_path: Path) -> None:
    with judge_server(lambda prompt: f"re: {prompt}") as server:
        for prompt, model in (("a", "m"), ("a", "m"), ("b", "m"), ("a", "n")):
            assert ask(server.url, prompt, memory=tmp_path, model=model) == f"re: {prompt}"
    assert server.prompts == ["a", "b", "a"]
    assert [request["model"] for request in server.requests] == ["m", "m", "n"]
    assert server.requests[0]["temperature"] == 0


def test_the_endpoint_learns_its_own_key_and_no_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("API_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "private")
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with judge_server(lambda prompt: "fine") as server:
        for variable in ("JUDGE_KEY", None):
            ask(server.url, str(variable), memory=tmp_path, key_variable=variable)
    assert [headers["Authorization"] for headers in server.headers] == [
        "Bearer secret",
        "Bearer EMPTY",
    ]
    assert not any("private" in str(headers) for headers in server.headers)
    assert not any("secret" in path.read_text() for path in tmp_path.rglob("*.txt"))


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_failed_requests_are_retried_with_backoff(status: int, waits: list[float]) -> None:
    replies = [status, status, "fine"]
    with judge_server(lambda prompt: replies.pop(0)) as server:
        assert ask(server.url) == "fine"
    assert waits == ([7, 7] if status == 429 else pytest.approx([0.5, 1], rel=0.25))


def test_an_absent_endpoint_gives_no_judgement(waits: list[float]) -> None:
    assert ask("http://127.0.0.1:9") is None
    assert len(waits) == RETRIES


@pytest.mark.parametrize(
    "reply", [400, b"not JSON", b"{}", b"[]", b'{"choices": []}', b'{"choices": [{}]}', ""]
)
def test_a_failed_reply_is_neither_repeated_nor_cached(reply: Any, tmp_path: Path) -> None:
    replies = [reply, "fine"]
    with judge_server(lambda prompt: replies.pop(0)) as server:
        assert [ask(server.url, memory=tmp_path) for _ in range(2)] == [None, "fine"]


def test_a_reply_without_a_verdict_is_not_cached(tmp_path: Path) -> None:
    replies = ["maybe", "CORRECT"]
    with judge_server(lambda prompt: replies.pop(0)) as server:
        judge = Endpoint(Judge(url=server.url, model="m"), memory=tmp_path)
        assert [judge.is_correct("q", "t", "a") for _ in range(2)] == [None, True]


@pytest.mark.parametrize(("status", "reason"), [(401, "key"), (403, "key"), (404, "model")])
def test_a_refusal_stops_the_run_in_one_line(status: int, reason: str) -> None:
    with (
        judge_server(lambda prompt: status) as server,
        pytest.raises(InputError, match=rf"^evaluate\.judge: .*{status}.*'m'.*{reason}.*$"),
    ):
        ask(server.url)


@pytest.mark.parametrize(
    ("reply", "correct"),
    [
        ("CORRECT", True),
        ("**Correct.**", True),
        ("INCORRECT", False),
        ("Verdict: incorrect", False),
        ("CORRECT or INCORRECT", None),
        ("yes", None),
    ],
)
def test_a_verdict_is_one_of_two_words(reply: str, correct: bool | None) -> None:
    with judge_server(lambda prompt: reply) as server:
        judge = Endpoint(Judge(url=server.url, model="m"))
        assert judge.is_correct("What?", "four", "4") is correct
    assert all(text in server.prompts[0] for text in ("What?", "four", "\n4\n"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000", "model": "m"}, r"url.*localhost:8000"),
        ({"url": "http://localhost"}, r"judge\.model: empty"),
        ({"url": "http://x", "model": "m", "key_variable": "NO_SUCH_KEY"}, "NO_SUCH_KEY"),
    ],
)
def test_impossible_settings_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_judge(Judge(**settings))


def test_no_judge_needs_no_settings() -> None:
    check_judge(Judge(key_variable="NO_SUCH_KEY"))
