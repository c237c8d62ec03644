"""The client of a served model: what it sends, what it remembers, and what bad replies become."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path
from typing import Any

import local_server
import pytest
from chat_server import chat_server, completion
from models import row
from PIL import Image

from interlace.errors import InputError
from interlace.model.chat import chat_messages
from interlace.params.served import ServedModel
from interlace.sources.endpoint import RETRIES, Completion, Endpoint, NoReply, wire_messages

FIELD = "answers.endpoint"


def endpoint(
    url: str, memory: Path | None = None, identity: str | None = None, **served: Any
) -> Endpoint:
    model = ServedModel(**({"url": url, "model": "m"} | served))
    return Endpoint(model, FIELD, memory=memory, identity=identity)


def ask(url: str, prompt: str = "a", memory: Path | None = None, **settings: Any) -> Completion:
    messages = [{"role": "user", "content": prompt}]
    return endpoint(url, memory, **settings).complete(messages, max_tokens=7)


def thinking(text: str, name: str) -> dict[str, Any]:
    """A completion of a server that takes reasoning out of the text."""
    reply = completion(text)
    reply["choices"][0]["message"][name] = "hm"
    return reply


def test_a_reply_is_cached_by_prompt_and_model(tmp_path: Path) -> None:
    with chat_server(lambda prompt: f"re: {prompt}") as server:
        for prompt, model in (("a", "m"), ("a", "m"), ("b", "m"), ("a", "n")):
            reply = ask(server.url, prompt, tmp_path, model=model)
            assert reply == Completion(f"re: {prompt}", cut=False)
    assert server.prompts == ["a", "b", "a"]
    assert [request["model"] for request in server.requests] == ["m", "m", "n"]
    assert server.requests[0]["temperature"] == 0
    assert server.requests[0]["max_tokens"] == 7


def test_a_damaged_reply_in_the_cache_is_asked_for_again(tmp_path: Path) -> None:
    with chat_server(lambda prompt: "fine") as server:
        ask(server.url, memory=tmp_path)
        (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
        for content in ("", "{}", '{"text": "fine", "cut": false'):
            file.write_text(content)
            assert ask(server.url, memory=tmp_path).text == "fine"
    assert len(server.requests) == 4


def test_the_endpoint_learns_its_own_key_and_no_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("API_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "private")
    monkeypatch.setenv("MY_KEY", "secret")
    with chat_server(lambda prompt: "fine") as server:
        for variable in ("MY_KEY", None):
            ask(server.url, str(variable), tmp_path, key_variable=variable)
    keys = [headers["Authorization"] for headers in server.headers]
    assert keys == ["Bearer secret", "Bearer EMPTY"]
    assert not any("private" in str(headers) for headers in server.headers)
    assert not any("secret" in path.read_text() for path in tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (completion("so", "length"), Completion("so", cut=True)),
        (completion(" so\n"), Completion(" so\n", cut=False)),
        (completion(None), Completion("", cut=False)),
        (thinking("so", "reasoning"), Completion("so", reasoning="hm")),
        (thinking("so", "reasoning_content"), Completion("so", reasoning="hm")),
    ],
    ids=["cut", "with spaces", "none", "vLLM's reasoning", "others' reasoning"],
)
def test_a_reply_keeps_its_text_and_tells_if_it_was_cut(reply: Any, expected: Completion) -> None:
    with chat_server(lambda prompt: reply) as server:
        assert ask(server.url) == expected


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Completion("7", reasoning="hm"), "<think>hm</think>7"),
        (Completion("", cut=True, reasoning="hm"), "<think>hm"),
        (Completion("7"), "7"),
    ],
    ids=["whole", "cut", "none"],
)
def test_reasoning_that_a_server_took_out_is_put_back_in_tags(reply: Completion, text: str) -> None:
    assert reply.whole == text


@pytest.mark.parametrize("listed", [["others"], 500], ids=["others", "no list"])
def test_transformers_serve_serves_what_it_does_not_list(listed: Any) -> None:
    reply = completion("Hi") | {"model": "m@main"}
    with chat_server(lambda prompt: reply, listed) as server:
        endpoint(server.url).check_serves()


def test_replies_are_cached_by_the_server_s_identity(tmp_path: Path) -> None:
    with chat_server(lambda prompt: "fine") as first, chat_server(lambda prompt: "no") as second:
        for server in (first, second):
            assert ask(server.url, memory=tmp_path, identity="both").text == "fine"
        assert ask(second.url, memory=tmp_path).text == "no"


def test_too_many_requests_and_half_replies_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    replies: list[Any] = [429, 503, "fine"]
    with chat_server(
        lambda prompt: replies.pop(0) if replies[1:] else "fine", broken_off=1
    ) as server:
        assert ask(server.url).text == "fine"
    assert len(server.requests) == 3 and len(waits) == 2


def test_an_endpoint_that_is_down_is_named_after_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(NoReply, match=r"^answers\.endpoint\.url: http://127\.0\.0\.1:9 cannot be"):
        ask("http://127.0.0.1:9")
    assert len(waits) == RETRIES


@pytest.mark.parametrize("reply", [b"<html>", b"{}", b"[]", b'{"choices": []}', {"choices": 3}])
def test_what_is_no_chat_completion_is_neither_repeated_nor_cached(
    reply: Any, tmp_path: Path
) -> None:
    replies = [reply, "fine"]
    with chat_server(lambda prompt: replies.pop(0)) as server:
        with pytest.raises(NoReply, match=r"that is not OpenAI's protocol"):
            ask(server.url, memory=tmp_path)
        assert ask(server.url, memory=tmp_path).text == "fine"


def test_a_refused_request_is_quoted_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "SECRET")

    class Refusing(local_server.Handler):
        def answer(self, path: str) -> None:
            complaint = f"too long for {self.headers['Authorization']}"
            self.reply({"error": {"message": complaint}}, 400)

    with local_server.serving(Refusing) as url, pytest.raises(NoReply) as caught:
        ask(url, key_variable="MY_KEY")
    assert "answers 400 for model 'm'" in str(caught.value)
    assert "too long for Bearer KEY" in str(caught.value)


def test_a_complaint_in_words_of_another_protocol_is_quoted() -> None:
    class Refusing(local_server.Handler):
        def answer(self, path: str) -> None:
            self.reply({"detail": "Unexpected fields: top_k"}, 422)

    with (
        local_server.serving(Refusing) as url,
        pytest.raises(NoReply, match=r"answers 422 .*Unexpected fields: top_k"),
    ):
        ask(url)


@pytest.mark.parametrize(("status", "reason"), [(401, "key"), (403, "key"), (404, "model")])
def test_a_refusal_is_no_missing_reply(status: int, reason: str) -> None:
    with (
        chat_server(lambda prompt: status) as server,
        pytest.raises(
            InputError, match=rf"^answers\.endpoint: .*{status}.*'m'.*{reason}"
        ) as caught,
    ):
        ask(server.url)
    assert not isinstance(caught.value, NoReply)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "SECRET")
    with chat_server(lambda prompt: "fine") as other:

        class Redirect(local_server.Handler):
            def answer(self, path: str) -> None:
                location = f"{other.url}/chat/completions?token=SECRET"
                self.reply(b"", status, {"Location": location})

        with (
            local_server.serving(Redirect) as url,
            pytest.raises(InputError, match=rf"answers {status} .* redirect") as caught,
        ):
            ask(url, key_variable="MY_KEY")
    assert not other.requests
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("listed", [["m", "n"], 404, 405], ids=str)
def test_an_endpoint_that_serves_the_model_passes(listed: Any) -> None:
    with chat_server(lambda prompt: "Hi", listed) as server:
        endpoint(server.url).check_serves()
    assert len(server.requests) == (0 if isinstance(listed, list) else 1)


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        (["n", "o"], r"^answers\.endpoint\.model = 'm': http://.* serves n, o; name the model"),
        ([], r"serves no model"),
        ([f"m{i}" for i in range(9)], r"serves m0, m1, m2, m3, m4 and 4 more"),
        (b"<html>", r"^answers\.endpoint\.url: .*not OpenAI's protocol"),
        ({"data": None}, r"not OpenAI's protocol"),
        (401, r"answers 401 for model 'm': the key is not accepted"),
        (404, r"not OpenAI's protocol"),
    ],
    ids=["others", "none", "many", "page", "no list", "key", "unlisted"],
)
def test_an_endpoint_that_does_not_is_refused(listed: Any, complaint: str) -> None:
    with (
        chat_server(lambda prompt: b"{}", listed) as server,
        pytest.raises(InputError, match=complaint),
    ):
        endpoint(server.url).check_serves()


def test_images_are_sent_as_data_urls_of_the_same_pixels() -> None:
    messages = chat_messages(row(3, images=2, turns=2))[:-1]
    first, second, third = wire_messages(messages)
    assert [first["role"], second["role"], third["role"]] == ["user", "assistant", "user"]
    assert isinstance(second["content"], str) and isinstance(third["content"], str)
    *images, text = first["content"]
    assert text == messages[0]["content"][-1]
    for part, item in zip(images, messages[0]["content"], strict=False):
        head, _, data = part["image_url"]["url"].partition(",")
        assert (part["type"], head) == ("image_url", "data:image/png;base64")
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert image.tobytes() == item["image"].tobytes()
