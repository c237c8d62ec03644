from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from evaluation.judge_server import judge_server

from interlace.errors import InputError
from interlace.evaluation.run.judge import RETRIES, Endpoint
from interlace.params.evaluating import Judge


def endpoint(url: str, *, memory: Path | None = None, **judge: Any) -> Endpoint:
    return Endpoint(Judge(**({"url": url, "model": "m"} | judge)), memory=memory)


def ask(url: str, prompt: str = "a", **settings: Any) -> str | None:
    return endpoint(url, **settings).ask(prompt, accepted=lambda reply: True)


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
    keys = [headers["Authorization"] for headers in server.headers]
    assert keys == ["Bearer secret", "Bearer EMPTY"]
    assert not any("private" in str(headers) for headers in server.headers)
    assert not any("secret" in path.read_text() for path in tmp_path.rglob("*.txt"))


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
    with judge_server(lambda prompt: replies.pop(0)) as server:
        judge = endpoint(server.url, memory=tmp_path)
        assert [judge.is_correct("q", "t", "a") for _ in range(3)] == [None, True, True]


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
        ("**Correct.**", True),
        ("Verdict: incorrect", False),
        ("CORRECT or INCORRECT", None),
        ("yes", None),
    ],
)
def test_a_verdict_is_one_of_two_words(reply: str, correct: bool | None) -> None:
    with judge_server(lambda prompt: reply) as server:
        assert endpoint(server.url).is_correct("What?", "four", "4") is correct
    assert all(text in server.prompts[0] for text in ("What?", "four", "\n4\n"))
