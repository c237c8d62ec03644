from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluation.judge_server import judge_server

from interlace.errors import InputError
from interlace.evaluation.run.judge import ATTEMPTS, Endpoint, check_judge
from interlace.params.evaluating import Judge


def endpoint(url: str, **kwargs: Any) -> Endpoint:
    return Endpoint(Judge(url=url, model="m", key_variable="JUDGE_KEY"), **kwargs)


def anything(said: str) -> bool:
    return True


def test_a_prompt_is_asked_once_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with judge_server(lambda prompt: f"re: {prompt}") as server:
        for _ in range(2):
            judge = endpoint(server.url, memory=tmp_path)
            assert judge.ask("a", accepted=anything) == "re: a"
        assert judge.ask("b", accepted=anything) == "re: b"
    assert [body["messages"][0]["content"] for body in server.asked] == ["a", "b"]
    assert (server.asked[0]["model"], server.asked[0]["temperature"]) == ("m", 0)
    assert server.keys == ["Bearer secret"] * 2
    assert not any("secret" in path.read_text() for path in tmp_path.rglob("*.txt"))


def test_another_model_is_asked_anew(tmp_path: Path) -> None:
    with judge_server(lambda prompt: "yes") as server:
        for model in ("m", "n"):
            Endpoint(Judge(url=server.url, model=model), memory=tmp_path).ask(
                "a", accepted=anything
            )
    assert len(server.asked) == 2
    assert server.keys == [None, None]


@pytest.mark.parametrize("trouble", [500, 503, 429, b"not JSON", b"{}", b'{"choices": []}', ""])
def test_trouble_is_waited_out(trouble: Any, tmp_path: Path) -> None:
    replies = [trouble, trouble, "fine"]
    waits: list[float] = []
    with judge_server(lambda prompt: replies.pop(0)) as server:
        judge = endpoint(server.url, memory=tmp_path, sleep=waits.append)
        assert judge.ask("a", accepted=anything) == "fine"
    assert waits == ([7, 7] if trouble == 429 else [1, 2])


def test_an_endpoint_that_is_not_there_gives_no_judgement() -> None:
    waits: list[float] = []
    judge = endpoint("http://127.0.0.1:9", sleep=waits.append)
    assert judge.ask("a", accepted=anything) is None
    assert waits == [1, 2, 4, 8, 16][: ATTEMPTS - 1]


def test_a_prompt_that_is_refused_is_not_asked_again() -> None:
    with judge_server(lambda prompt: 400) as server:
        assert endpoint(server.url).ask("a", accepted=anything) is None
    assert len(server.asked) == 1


def test_nonsense_is_neither_used_nor_remembered(tmp_path: Path) -> None:
    replies = ["maybe", "CORRECT"]
    with judge_server(lambda prompt: replies.pop(0)) as server:
        judge = endpoint(server.url, memory=tmp_path)
        assert judge.is_correct("q", "t", "a") is None
        assert judge.is_correct("q", "t", "a") is True


@pytest.mark.parametrize(
    ("status", "message"), [(401, "the key is not accepted"), (404, "no such endpoint or model")]
)
def test_a_judge_that_refuses_us_stops_the_run_in_one_line(status: int, message: str) -> None:
    with (
        judge_server(lambda prompt: status) as server,
        pytest.raises(InputError, match=message) as error,
    ):
        endpoint(server.url).ask("a", accepted=anything)
    assert "evaluate.judge" in str(error.value)


@pytest.mark.parametrize(
    ("said", "correct"),
    [
        ("CORRECT", True),
        ("**Correct.**", True),
        ("INCORRECT", False),
        ("Verdict: incorrect", False),
        ("CORRECT or INCORRECT", None),
        ("yes", None),
    ],
)
def test_a_verdict_is_one_of_two_words(said: str, correct: bool | None) -> None:
    with judge_server(lambda prompt: said) as server:
        assert endpoint(server.url).is_correct("What?", "four", "4") is correct
    prompt = server.asked[0]["messages"][0]["content"]
    assert all(text in prompt for text in ("What?", "four", "\n4\n"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"url": "localhost:8000", "model": "m"}, "not an address"),
        ({"url": "http://localhost"}, "evaluate.judge.model: empty"),
        ({"url": "http://x", "model": "m", "key_variable": "NO_SUCH_KEY"}, "is not set"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_judge(Judge(**given))


def test_no_judge_needs_no_settings() -> None:
    check_judge(Judge(key_variable="NO_SUCH_KEY"))
