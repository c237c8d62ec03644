"""Ask a judge: another model, behind an endpoint that speaks OpenAI's chat completions.

Answers are remembered by content, so no question is paid for twice. A judge that stays silent or
talks nonsense gives no judgement; it never makes an answer wrong. No torch here.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interlace.errors import InputError
from interlace.outputs import whole
from interlace.params.evaluating import Judge

ATTEMPTS = 6  # with the waits below: half a minute of trouble is survived
TIMEOUT = 120.0  # seconds for one reply
LONGEST_WAIT = 60.0  # seconds
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
        InputError: a model or a key is missing, or the address is none.
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
            " not set; export the endpoint's key in it, or leave it empty for one without a key"
        )


class Endpoint:
    """A judge that can be asked, from several threads at once.

    Args:
        judge: where it is; checked by `check_judge`.
        memory: folder that remembers its replies; none: they are forgotten.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        memory: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = str(judge.url).rstrip("/") + "/chat/completions"
        self.model = str(judge.model)
        self.key = os.environ.get(judge.key_variable or "", "")
        self.memory = memory
        self.sleep = sleep
        self._writing = threading.Lock()

    def ask(
        self, prompt: str, *, accepted: Callable[[str], Any], max_tokens: int = 1024
    ) -> str | None:
        """Its reply to a prompt, at temperature 0.

        Args:
            prompt: the one user message.
            accepted: whether a reply can be used; another one is not remembered.
            max_tokens: longest reply, tokens.

        Returns:
            The reply; none where there was none that could be used.

        Raises:
            InputError: the endpoint refuses the key, or knows no such model.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        known = self._remembered(body)
        if known and known.is_file():
            return known.read_text(encoding="utf-8")
        reply = self._reply(json.dumps(body).encode())
        if reply is None or not accepted(reply):
            return None
        if known:
            with self._writing, whole(known) as partial:
                partial.write_text(reply, encoding="utf-8")
        return reply

    def is_correct(self, question: str, target: str, answer: str) -> bool | None:
        """Whether an answer to an open question is correct; none without a judgement."""
        prompt = GRADING.format(question=question, target=target, answer=answer)
        reply = self.ask(prompt, accepted=_verdict, max_tokens=16)
        return None if reply is None else _verdict(reply) == "CORRECT"

    def _remembered(self, body: dict[str, Any]) -> Path | None:
        if self.memory is None:
            return None
        asked = json.dumps([self.url, body], sort_keys=True).encode()
        name = hashlib.sha256(asked).hexdigest()
        return self.memory / name[:2] / f"{name}.txt"

    def _reply(self, body: bytes) -> str | None:
        for attempt in range(ATTEMPTS):
            try:
                return self._once(body)
            except urllib.error.HTTPError as error:
                if why := REFUSALS.get(error.code):
                    raise InputError(
                        f"evaluate.judge: {self.url} answers {error.code} for model"
                        f" {self.model!r}: {why}; correct evaluate.judge"
                    ) from None
                if error.code < 500 and error.code not in (408, 409, 425, 429):
                    return None  # it will not take this prompt, however often it is asked
                wait = _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
                wait = None  # no connection, cut off, or no chat completion
            if attempt + 1 < ATTEMPTS:
                self.sleep(min(2.0**attempt if wait is None else wait, LONGEST_WAIT))
        return None

    def _once(self, body: bytes) -> str:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self.url, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
            said = json.load(reply)["choices"][0]["message"]["content"].strip()
        if not said:
            raise ValueError("an empty reply")
        return str(said)


def _verdict(reply: str) -> str | None:
    words = [word.strip("*.,:;!\"'`()").upper() for word in reply.split()]
    verdicts = {word for word in words if word in ("CORRECT", "INCORRECT")}
    return verdicts.pop() if len(verdicts) == 1 else None


def _seconds(said: str | None) -> float | None:
    try:
        return max(float(said or ""), 0.0)
    except ValueError:
        return None
