"""A model whose answers are known, and which remembers what it was shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lmms_eval.api.model import lmms


class FakeModel(lmms):
    is_simple = False

    def __init__(self, answer: Callable[[dict[str, Any], int], str]) -> None:
        super().__init__()
        self.answer = answer
        self.device = "cpu"
        self.shown: list[list[dict[str, Any]]] = []
        self.settings: list[dict[str, Any]] = []

    def generate_until(self, requests: Any) -> list[str]:
        answers = []
        for request in requests:
            _, doc_to_messages, settings, row, task, split = request.args
            doc = self.task_dict[task][split][row]
            self.shown.append(doc_to_messages(doc))
            self.settings.append(settings)
            answers.append(self.answer(doc, row))
        return answers

    def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:
        raise NotImplementedError

    def generate_until_multi_round(self, requests: Any) -> list[str]:
        raise NotImplementedError
