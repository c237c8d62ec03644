"""A judge: another model, served by an endpoint that speaks OpenAI's chat completions.

Replies are cached by content, so no question is paid for twice. A judge that fails or replies
nonsense leaves the answer without a judgement, never wrong. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interlace.errors import InputError
from interlace.outputs import whole
from interlace.params.evaluating import Judge

RETRIES = 7  # the client waits 0.5 to 8 seconds before each, about half a minute in all
TIMEOUT = 120.0  # seconds for one reply
NO_KEY = "EMPTY"  # the client insists on a key; vLLM's word for none
REFUSALS = {
    401: "the key is not accepted",
    403: "the key may not use this model",
    404: "no such endpoint or model",
}
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
    """Refuse settings that cannot work, before anything is loaded.

    Raises:
        InputError: the address is not one, or the model or the key is missing.
    """
    if judge.url is None:
        return
    if not judge.url.startswith(("http://", "https://")):
        raise InputError(
            f"evaluate.judge.url = {judge.url!r}: not an address; write it as https://host/v1"
        )
    if not judge.model:
        raise InputError("evaluate.judge.model: empty; name the model that the endpoint serves")
    if judge.key_variable and not os.environ.get(judge.key_variable):
        raise InputError(
            f"evaluate.judge.key_variable = {judge.key_variable!r}: that environment variable is"
            " not set; export the endpoint's key in it, or leave the field empty for an endpoint"
            " without keys"
        )


class Endpoint:
    """A judge that several threads may ask at once.

    The client sends the key, the prompt and its own version to the endpoint, and nothing elsewhere.

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
            InputError: the endpoint refuses the key, or knows no such model.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        cached = self._cached(body)
        if cached and cached.is_file():
            return cached.read_text(encoding="utf-8")
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
            return str(completion.choices[0].message.content or "").strip()
        except APIStatusError as error:
            if reason := REFUSALS.get(error.status_code):
                raise InputError(
                    f"evaluate.judge: {self.url} answers {error.status_code} for model"
                    f" {self.model!r}: {reason}; correct evaluate.judge"
                ) from None
        except (OpenAIError, ValueError, LookupError, TypeError, AttributeError):
            pass  # no connection, or no chat completion
        return None


def _verdict(reply: str) -> str | None:
    words = [word.strip("*.,:;!\"'`()").upper() for word in reply.split()]
    verdicts = {word for word in words if word in ("CORRECT", "INCORRECT")}
    return verdicts.pop() if len(verdicts) == 1 else None
