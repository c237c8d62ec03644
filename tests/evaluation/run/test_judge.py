from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import local_server
import pytest
from evaluation.judge_server import judge_server

from interlace.errors import InputError
from interlace.evaluation.run.judge import RETRIES, Endpoint, check_judge, sends_in_clear
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


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "HTTPS://api.example.com/v1/",
        "http://[::1]:8000/v1",
        "http://judge_1.local:65535",
        "https://xn--mnchen-3ya.de/v1",
        "http://10.0.0.7:80/a/b",
    ],
)
def test_an_address_that_the_client_can_call_is_accepted(url: str) -> None:
    check_judge(Judge(url=url, model="m"))
    endpoint(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000/v1",
        "file:///etc/passwd",
        "ftp://host/v1",
        "http://",
        "http:///v1",
        "http:host/v1",
        "https:user:SECRET@host/v1",
        "http://host:0/v1",
        "http://host:/v1",
        "http://host:65536/v1",
        "http://host:-1/v1",
        "http://host:80a/v1",
        "http://host:80:80/v1",
        "http://[::1/v1",
        "http://[::g]/v1",
        "http://[fe80::1%25eth0]/v1",
        "http://999.1.1.1/v1",
        "http://1.2.3/v1",
        "http://-host/v1",
        "http://a..b/v1",
        "http://a%00b/v1",
        f"http://{'a' * 64}/v1",
        f"http://host/{'a' * 70_000}",
        "http://ho st/v1",
        "http://host/v1\n",
        "http://host\t/v1",
        "http://h\u00f6st/v1",
        "http://me:SECRET@host/v1",
        "http://SECRET@host/v1",
        "https://host/v1?key=SECRET",
        "https://host?SECRET",
        "https://host/v1#SECRET",
    ],
    ids=lambda url: repr(url[:40]),
)
def test_any_other_address_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(
        InputError, match=r"^evaluate\.judge\.url.*: .*https://host/v1.*$"
    ) as caught:
        check_judge(Judge(url=url, model="m"))
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("variable", ["sk-SECRET", "hf_SECRET", "sk SECRET", "A=SECRET", "$SECRET"])
def test_a_key_in_place_of_its_variable_s_name_is_not_printed(variable: str) -> None:
    with pytest.raises(InputError, match=r"^evaluate\.judge\.key_variable: ") as caught:
        check_judge(Judge(url="http://localhost/v1", model="m", key_variable=variable))
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("key", ["SECRET\n", "SE CRET", "SECRET\u00e9", "\tSECRET"])
def test_a_key_that_no_header_may_hold_is_refused(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", key)
    with pytest.raises(InputError, match=r"'JUDGE_KEY': the key in it has") as caught:
        check_judge(Judge(url="http://localhost/v1", model="m", key_variable="JUDGE_KEY"))
    assert key not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "SECRET")
    with judge_server(lambda prompt: "CORRECT") as other:

        class Redirect(local_server.Handler):
            def answer(self, path: str) -> None:
                location = f"{other.url}/chat/completions?token=SECRET"
                self.reply(b"", status, {"Location": location})

        with (
            local_server.serving(Redirect) as url,
            pytest.raises(InputError, match=rf"answers {status} .* redirect") as caught,
        ):
            ask(url, key_variable="JUDGE_KEY")
    assert not other.requests
    assert "SECRET" not in str(caught.value)


def test_a_reply_nested_too_deeply_is_no_judgement() -> None:
    deep = b'{"choices": ' + b"[" * 200_000
    with judge_server(lambda prompt: deep) as server:
        assert ask(server.url) is None


@pytest.mark.parametrize(
    ("url", "in_clear"),
    [
        (None, False),
        ("http://localhost:8000/v1", False),
        ("http://judge.localhost/v1", False),
        ("http://127.8.0.1/v1", False),
        ("http://[::1]/v1", False),
        ("https://example.com/v1", False),
        ("http://example.com/v1", True),
        ("HTTP://10.0.0.7/v1", True),
        ("http://localhost.example.com/v1", True),
        ("http://0.0.0.0/v1", True),
    ],
)
def test_plain_http_beyond_this_machine_is_seen(url: str | None, in_clear: bool) -> None:
    assert sends_in_clear(Judge(url=url)) is in_clear
