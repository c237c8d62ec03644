"""A judge: another model, served by an endpoint that speaks OpenAI's chat completions.

A judge that fails or replies nonsense leaves the answer without a judgement, never wrong. No torch
here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from interlace.params.evaluating import Judge
from interlace.sources.endpoint import Endpoint, NoReply

FIELD = "evaluate.judge"
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


class Grader:
    """A judge that several threads may ask at once.

    Args:
        judge: the endpoint's address, model and key; checked by `served.check_served`.
        memory: folder that caches replies; None: no cache.
    """

    def __init__(self, judge: Judge, *, memory: Path | None = None) -> None:
        self.endpoint = Endpoint(judge, FIELD, memory=memory)

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
        messages = [{"role": "user", "content": prompt}]

        def usable(text: str) -> bool:
            return bool(text.strip() and accepted(text.strip()))

        try:
            reply = self.endpoint.complete(messages, max_tokens=max_tokens, accepted=usable)
        except NoReply:
            return None
        return reply.text.strip()

    def is_correct(self, question: str, target: str, answer: str) -> bool | None:
        """Grade an answer to an open question; None without a judgement."""
        prompt = GRADING.format(question=question, target=target, answer=answer)
        reply = self.ask(prompt, accepted=_verdict, max_tokens=16)
        return None if reply is None else _verdict(reply) == "CORRECT"


def _verdict(reply: str) -> str | None:
    words = [word.strip("*.,:;!\"'`()").upper() for word in reply.split()]
    verdicts = {word for word in words if word in ("CORRECT", "INCORRECT")}
    return verdicts.pop() if len(verdicts) == 1 else None
