"""A model whose answers are known, and which records its prompts and settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lmms_eval.api.model import lmms


class FakeModel(lmms):
    is_simple = False

    def __init__(self, answer: Callable[[dict[str, Any], int], str]) -> None:
        super().__init__()
        self.answer = answer
        self.device = "cpu"
        self.prompts: list[list[dict[str, Any]]] = []
        self.settings: list[dict[str, Any]] = []

    def generate_until(self, requests: Any) -> list[str]:
        return [answer for batch in self.batches(requests) for answer in batch.values()]

    def batches(
        self, requests: Any, *, skip: Any = (), process: int = 0, processes: int = 1
    ) -> Iterator[dict[int, str]]:
        for index, request in enumerate(requests):
            if index in skip:
                continue
            _, doc_to_messages, settings, row, task, split = request.args
            doc = self.task_dict[task][split][row]
            self.prompts.append(doc_to_messages(doc))
            self.settings.append(settings)
            yield {index: self.answer(doc, row)}

    def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:
        raise NotImplementedError

    def generate_until_multi_round(self, requests: Any) -> list[str]:
        raise NotImplementedError
