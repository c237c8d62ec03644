"""The client of a model that an endpoint serves by OpenAI's chat completions.

Lost connections, timeouts and refusals for the moment (429, 5xx) are repeated, see `retries`.
Replies are cached by content, so that nothing is paid for twice. No torch here.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from interlace.errors import InputError
from interlace.params.served import ServedModel
from interlace.sources.retries import repeated
from interlace.system.outputs import whole

RETRIES = 7  # about half a minute in all
TIMEOUT = 120.0  # seconds for one reply
QUICK, QUICK_RETRIES = 20.0, 2  # seconds for a first reply, to see if all is well, and its retries
READY = 5.0  # seconds for a look if it is there
SEEDS = 2**31  # that every server can tell apart
NO_KEY = "EMPTY"  # the client insists on a key; vLLM's word for none
NAMED = 5  # models in a message
QUOTED = 200  # characters of an endpoint's complaint in a message
REFUSALS = {
    401: "the key is not accepted",
    403: "the key may not use this model",
    404: "no such endpoint or model",
}
TOO_LARGE = "send smaller images, or raise the endpoint's bound on a request"
UNLISTED = (404, 405, 500, 501)  # from an endpoint that does not list its models
LOADING = (502, 503, 504)  # from an endpoint that is not ready yet
ODD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)  # of a malformed reply

Message = dict[str, Any]


class NoReply(InputError):
    """An endpoint gave no usable reply, after all retries."""


class Unreachable(NoReply):
    """An endpoint is not there, or breaks off its replies, after all retries."""


@dataclass(frozen=True)
class Completion:
    """A reply.

    Attributes:
        text: as the model wrote it; empty where the endpoint gave none.
        cut: True if it ran into the bound on its length.
        reasoning: what the endpoint took out of the text as the model's reasoning.
    """

    text: str
    cut: bool = False
    reasoning: str = ""

    @property
    def whole(self) -> str:
        """The text with its reasoning in tags, as most models write it."""
        if not self.reasoning:
            return self.text
        end = "" if self.cut and not self.text else "</think>"
        return f"<think>{self.reasoning}{end}{self.text}"


class Endpoint:
    """A served model that several threads may ask at once.

    The client sends the key, the messages and its own version to the endpoint, and nothing
    elsewhere: it follows no redirect.

    Args:
        served: the endpoint's address, model and key; checked by `served.check_served`.
        field: its section of params.yaml, for messages.
        names: the names of `url` and `model` in that section.
        memory: folder that caches replies; None: no cache.
        identity: of the server, to cache its replies by; None: its address.
        timeout: for one reply, seconds.
    """

    def __init__(
        self,
        served: ServedModel,
        field: str,
        *,
        names: tuple[str, str] = ("url", "model"),
        memory: Path | None = None,
        identity: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        import openai  # 0.7 seconds; only a run with an endpoint needs it

        self.url = str(served.url).rstrip("/")
        self.model = str(served.model)
        self.field = field
        self.url_field, self.model_field = (f"{field}.{name}" for name in names)
        self.memory = memory
        self.identity = identity or f"{self.url}/chat/completions"
        self.timeout = timeout
        self.key = os.environ.get(served.key_variable or "") or NO_KEY
        self._client = openai.OpenAI(
            base_url=self.url,
            api_key=self.key,
            max_retries=0,  # `repeated` tries again
            timeout=timeout,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
            # else the client would send OPENAI_ORG_ID and OPENAI_PROJECT_ID to any endpoint
            default_headers={"OpenAI-Organization": openai.omit, "OpenAI-Project": openai.omit},
        )
        self._writing = threading.Lock()

    def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
        sampling: Mapping[str, Any] | None = None,
        accepted: Callable[[str], Any] = lambda text: True,
    ) -> Completion:
        """Return the reply to a conversation that ends with a user's turn.

        Args:
            messages: as the endpoint reads them, see `wire_messages`.
            max_tokens: longest reply, tokens.
            temperature: of sampling; 0: greedy.
            seed: of sampling, for endpoints that take one; its last 31 bits are sent, since some
                servers hold a seed in 32 bits.
            sampling: further fields of the request, such as `top_p`.
            accepted: true of a usable text; other replies are not cached.

        Raises:
            NoReply: it is down, refuses this request, or answers something else.
            InputError: it refuses the key, knows no such model, or redirects.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        body |= {} if seed is None else {"seed": seed % SEEDS}
        body |= {"extra_body": dict(sampling)} if sampling else {}
        file = self._cache_file(body)
        if file and (cached := _read_completion(file)) and accepted(cached.text):
            return cached
        completion: Completion = self._asked(
            lambda: _completion(self._client.chat.completions.create(**body)), RETRIES
        )
        if not accepted(completion.text):
            raise NoReply(f"{self.field}: {self.url} gives no usable reply")
        if file:
            with self._writing, whole(file) as partial:
                partial.write_text(json.dumps(asdict(completion)), encoding="utf-8")
        return completion

    def check_serves(self) -> None:
        """Check that the endpoint is there and serves the model, by one small request.

        Raises:
            InputError: it is down, answers something else, or names other models.
        """
        quick = self._client.with_options(timeout=QUICK)
        names = self._asked(lambda: _model_names(quick), QUICK_RETRIES)
        if names is None:  # it lists none: one token tells as much
            self._one_token(quick, QUICK_RETRIES)
        elif self.model not in names and not self._answers_unlisted():
            served = ", ".join(names[:NAMED]) or "no model"
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            raise InputError(
                f"{self.model_field} = {self.model!r}: {self.url} serves {served}{more}; name the"
                " model as it does"
            )

    def is_ready(self) -> bool:
        """Tell if it answers at all, by one try."""
        from openai import APIStatusError, OpenAIError

        try:
            _model_names(self._client.with_options(timeout=READY))
        except APIStatusError as error:
            return error.status_code not in LOADING
        except (OpenAIError, *ODD):
            return False
        return True

    def _answers_unlisted(self) -> bool:
        """Tell if it answers by the model though it lists others.

        `transformers serve` lists the hub's cache, and loads any folder: its reply names the model
        with a revision. Other servers may answer by whatever they have.
        """
        try:
            reply = self._one_token(self._client, 0)
        except InputError:
            return False
        return str(getattr(reply, "model", "")).startswith(f"{self.model}@")

    def _one_token(self, client: Any, retries: int) -> Any:
        """Return the reply to a request for one token."""
        body: Any = {"model": self.model, "max_tokens": 1}
        body["messages"] = [{"role": "user", "content": "Hello"}]

        def request() -> Any:
            reply = client.chat.completions.create(**body)
            _completion(reply)
            return reply

        return self._asked(request, retries)

    @property
    def version(self) -> str | None:
        """The server's version, as vLLM tells it beside the API; `None`: not told."""
        import httpx

        try:
            root = self.url.removesuffix("/v1")
            reply = httpx.get(f"{root}/version", timeout=QUICK).raise_for_status()
            version = reply.json()["version"]
        except (httpx.HTTPError, *ODD):
            return None
        return version if isinstance(version, str) else None

    def _asked(self, request: Callable[[], Any], retries: int) -> Any:
        """Return what a request returns; name what goes wrong in one line."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError

        try:
            return repeated(request, retries)
        except APIStatusError as error:
            words = " ".join(error.response.text.split()) or str(error)
            raise self.refusal(error.status_code, words) from None
        except APITimeoutError:
            raise self.failure("timeout") from None
        except APIConnectionError:
            raise self.failure("connection") from None
        except (OpenAIError, *ODD):
            raise self.failure("protocol") from None

    def failure(self, kind: Literal["timeout", "connection", "protocol"]) -> NoReply:
        """Return the error of a request that got no reply, or no whole one."""
        reason = {
            "timeout": f"gives no reply in {self.timeout:g} seconds",
            "connection": "cannot be reached, or breaks off its replies",
            "protocol": "answers something that is not OpenAI's protocol",
        }[kind]
        return (Unreachable if kind == "connection" else NoReply)(
            f"{self.url_field}: {self.url} {reason}; start the endpoint or correct the address, and"
            " run it again: finished answers are kept"
        )

    def refusal(self, code: int, complaint: str) -> InputError:
        """Return the error of a reply with a status that is none of success."""
        where = f"{self.field}: {self.url} answers {code} for model {self.model!r}"
        if 300 <= code < 400:
            remedy = f"set {self.url_field} to where it leads"
            return InputError(
                f"{where}: a redirect, which is not followed with the key: {remedy}; correct"
                f" {self.field}"
            )
        if reason := REFUSALS.get(code):
            return InputError(f"{where}: {reason}; correct {self.field}")
        words = complaint.replace(self.key, "KEY")[:QUOTED]
        remedy = TOO_LARGE if code == 413 else "see the endpoint's log, and run it again"
        return NoReply(f"{where}: {words}; {remedy}")

    def _cache_file(self, body: dict[str, Any]) -> Path | None:
        """Return the file of the cached reply to a request."""
        if self.memory is None:
            return None
        content = json.dumps([self.identity, body], sort_keys=True).encode()
        name = hashlib.sha256(content).hexdigest()
        return self.memory / name[:2] / f"{name}.json"


def _completion(reply: Any) -> Completion:
    """Read a chat completion; anything else raises one of `ODD`."""
    choice = reply.choices[0]
    text = choice.message.content
    if not isinstance(text, str | None):
        raise TypeError("no text")
    extra = choice.message.model_extra or {}  # servers spell it in two ways
    reasoning = extra.get("reasoning_content") or extra.get("reasoning") or ""
    cut = choice.finish_reason == "length"
    return Completion(text or "", cut, reasoning if isinstance(reasoning, str) else "")


def _model_names(client: Any) -> list[str] | None:
    """Return the models that an endpoint lists; None if it lists none at all."""
    from openai import APIStatusError

    try:
        return [str(model.id) for model in client.models.list().data]
    except APIStatusError as error:
        if error.status_code in UNLISTED:
            return None
        raise


def _read_completion(file: Path) -> Completion | None:
    try:
        return Completion(**json.loads(file.read_bytes()))
    except (OSError, TypeError, ValueError):  # not there, or damaged
        return None


def wire_messages(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Convert messages of processors to those of chat completions; images become data URLs.

    Args:
        messages: from `model.chat.chat_messages`; images are open.
    """
    return [
        {"role": message["role"], "content": _wire_content(message["content"])}
        for message in messages
    ]


def _wire_content(content: Sequence[Mapping[str, Any]]) -> str | list[Message]:
    """Return text alone as a string, which all servers of text models read."""
    if all(item["type"] == "text" for item in content):
        return "".join(item["text"] for item in content)
    return [
        {"type": "text", "text": item["text"]}
        if item["type"] == "text"
        else {"type": "image_url", "image_url": {"url": data_url(item["image"])}}
        for item in content
    ]


def data_url(image: Any) -> str:
    """Return an open image as a PNG in a data URL: the same pixels."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
