"""A judge: another model, served by an endpoint that speaks OpenAI's chat completions.

Replies are cached by content, so no question is paid for twice. A judge that fails or replies
nonsense leaves the answer without a judgement, never wrong. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from interlace.errors import InputError, shown
from interlace.params.evaluating import Judge
from interlace.printable import say
from interlace.system.outputs import whole

RETRIES = 7  # the client waits 0.5 to 8 seconds before each, about half a minute in all
TIMEOUT = 120.0  # seconds for one reply
NO_KEY = "EMPTY"  # the client insists on a key; vLLM's word for none
LONGEST_URL = 2000  # characters
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORD = re.compile(r"[!-~]+")  # printable ASCII without spaces
_HOST = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?"
)
REFUSALS = {
    401: "the key is not accepted",
    403: "the key may not use this model",
    404: "no such endpoint or model",
}
REDIRECT = (
    "a redirect, which is not followed with the key: set evaluate.judge.url to where it leads"
)
GRADING = """You grade the answer of a vision-language model against the reference answer.

Question:
{question}

Reference answer:
{target}

Answer to grade:
{answer}

The answer is correct if it says what the reference says: other words, notation, units written in \
another way, equivalent numbers and further true detail do not matter; for a mathematical problem \
only the final result counts. An answer that is empty, cut off before its result, or contradicts \
the reference is incorrect.
Reply with one word: CORRECT or INCORRECT."""


def check_judge(judge: Judge) -> None:
    """Refuse settings that cannot work, before anything is loaded; no message holds a secret.

    Raises:
        InputError: the address is not one, or the model or the key is missing.
    """
    if judge.url is None:
        return
    if complaint := _address_complaint(judge.url):
        value = "" if set("@?#") & set(judge.url) else f" = {shown(judge.url)}"
        raise InputError(
            f"evaluate.judge.url{value}: {complaint}; write it as https://host/v1, without secrets"
        )
    if not judge.model:
        raise InputError("evaluate.judge.model: empty; name the model that the endpoint serves")
    if not judge.key_variable:
        return
    if not _VARIABLE.fullmatch(judge.key_variable):
        raise InputError(
            "evaluate.judge.key_variable: not the name of an environment variable; export the key"
            " in one, e.g. JUDGE_KEY, and write that name here, never the key"
        )
    key = os.environ.get(judge.key_variable)
    # lower case may be the key itself
    value = f" = {judge.key_variable!r}" if judge.key_variable.isupper() else ""
    if not key:
        raise InputError(
            f"evaluate.judge.key_variable{value}: that environment variable is not set; export the"
            " endpoint's key in it, or leave the field empty for an endpoint without keys"
        )
    if not _WORD.fullmatch(key):
        raise InputError(
            f"evaluate.judge.key_variable{value}: the key in it has a space, a"
            " line break or a letter that no header may hold; export it anew"
        )


def sends_in_clear(judge: Judge) -> bool:
    """Tell if the key and the answers would cross a network unencrypted."""
    if judge.url is None:
        return False
    address = urlsplit(judge.url)
    host = address.hostname or ""
    local = host == "localhost" or host.endswith(".localhost")
    return address.scheme == "http" and not local and not _is_loopback(host)


def warn_of_plain_http(judge: Judge) -> None:
    """Print a warning where `sends_in_clear` is true."""
    if sends_in_clear(judge):
        say(
            "warning: evaluate.judge.url is plain http to another machine: the key and the answers"
            " can be read on the way; use https",
            error=True,
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _address_complaint(url: str) -> str | None:
    """Say why an address is none, without its user, password and query; None where it is one."""
    if not _WORD.fullmatch(url) or len(url) > LONGEST_URL:
        return "empty, too long, or with a space or a letter beyond ASCII"
    try:
        address = urlsplit(url)
        host, port = address.hostname or "", address.port
    except ValueError:  # a port that is no number below 65536, or half of an IPv6 address
        return "its host or its port is not valid"
    if "@" in url:
        return (
            "holds a user or a password; export the key, and name it in evaluate.judge.key_variable"
        )
    if "?" in url or "#" in url:
        return "holds a query or a fragment, to which no path can be added"
    if address.scheme not in ("http", "https"):
        return "not an address of http or https"
    if port == 0 or address.netloc.endswith(":") or not _is_host(host):
        return "without a valid host and port"
    return None


def _is_host(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        numbers = re.fullmatch(r"[\d.]+", host)
        return len(host) < 254 and not numbers and _HOST.fullmatch(host) is not None
    return "%" not in host


class Endpoint:
    """A judge that several threads may ask at once.

    The client sends the key, the prompt and its own version to the endpoint, and nothing elsewhere:
    it follows no redirect.

    Args:
        judge: the endpoint's address, model and key; checked by `check_judge`.
        memory: folder that caches replies; None: no cache.
    """

    def __init__(self, judge: Judge, *, memory: Path | None = None) -> None:
        import openai  # 0.7 seconds; only a run with a judge needs it

        self.url = str(judge.url).rstrip("/")
        self.model = str(judge.model)
        self.memory = memory
        self._client = openai.OpenAI(
            base_url=self.url,
            api_key=os.environ.get(judge.key_variable or "") or NO_KEY,
            max_retries=RETRIES,
            timeout=TIMEOUT,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
            # else the client would send OPENAI_ORG_ID and OPENAI_PROJECT_ID to any endpoint
            default_headers={"OpenAI-Organization": openai.omit, "OpenAI-Project": openai.omit},
        )
        self._writing = threading.Lock()

    def ask(
        self, prompt: str, *, accepted: Callable[[str], Any], max_tokens: int = 1024
    ) -> str | None:
        """Return the reply to a prompt, at temperature 0.

        Args:
            prompt: the only message, from the user.
            accepted: true of a usable reply; other replies are not cached.
            max_tokens: longest reply, tokens.

        Returns:
            The reply; None without a usable one.

        Raises:
            InputError: the endpoint refuses the key, knows no such model, or redirects.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        cached = self._cached(body)
        if cached and (remembered := _read_reply(cached)) and accepted(remembered):
            return remembered
        reply = self._reply(body)
        if not reply or not accepted(reply):
            return None
        if cached:
            with self._writing, whole(cached) as partial:
                partial.write_text(reply, encoding="utf-8")
        return reply

    def is_correct(self, question: str, target: str, answer: str) -> bool | None:
        """Grade an answer to an open question; None without a judgement."""
        prompt = GRADING.format(question=question, target=target, answer=answer)
        reply = self.ask(prompt, accepted=_verdict, max_tokens=16)
        return None if reply is None else _verdict(reply) == "CORRECT"

    def _cached(self, body: dict[str, Any]) -> Path | None:
        """File of the cached reply to a request."""
        if self.memory is None:
            return None
        content = json.dumps([f"{self.url}/chat/completions", body], sort_keys=True).encode()
        name = hashlib.sha256(content).hexdigest()
        return self.memory / name[:2] / f"{name}.txt"

    def _reply(self, body: dict[str, Any]) -> str | None:
        """Send one request; the client retries lost connections, timeouts, 408, 409, 429, 5xx."""
        from openai import APIStatusError, OpenAIError

        try:
            completion = self._client.chat.completions.create(**body)
            content = completion.choices[0].message.content
            return content.strip() if isinstance(content, str) else None
        except APIStatusError as error:
            code = error.status_code
            if reason := REDIRECT if 300 <= code < 400 else REFUSALS.get(code):
                raise InputError(
                    f"evaluate.judge: {self.url} answers {code} for model"
                    f" {self.model!r}: {reason}; correct evaluate.judge"
                ) from None
        except (OpenAIError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            pass  # no connection, or no chat completion
        return None


def _read_reply(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # not there, or damaged
        return None


def _verdict(reply: str) -> str | None:
    words = [word.strip("*.,:;!\"'`()").upper() for word in reply.split()]
    verdicts = {word for word in words if word in ("CORRECT", "INCORRECT")}
    return verdicts.pop() if len(verdicts) == 1 else None
