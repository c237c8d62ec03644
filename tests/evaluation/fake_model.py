"""A model whose answers are known, and which records its prompts and settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lmms_eval.api.model import lmms

from interlace.evaluation.run.answering import answer_tasks
from interlace.evaluation.run.journal import Reply
from interlace.evaluation.scores.answers import Answer

Answerer = Callable[[dict[str, Any], int], str]  # of a row and its number


class FakeModel(lmms):
    is_simple = False

    def __init__(self, reply: Answerer) -> None:
        super().__init__()
        self.conversations: dict[str, Any] = {}
        self.reply = reply
        self.device = "cpu"
        self.prompts: list[list[dict[str, Any]]] = []
        self.settings: list[dict[str, Any]] = []

    def batches(self, requests: Any, **share: Any) -> Iterator[dict[int, Reply]]:
        for index, request in enumerate(requests):
            _, doc_to_messages, settings, row, task, split = request.args
            doc = self.task_dict[task][split][row]
            self.prompts.append(doc_to_messages(doc))
            self.settings.append(settings)
            yield {index: Reply(self.reply(doc, row))}

    def generate_until(self, requests: Any) -> list[str]:
        return [reply.text for batch in self.batches(requests) for reply in batch.values()]

    loglikelihood = generate_until_multi_round = generate_until  # abstract in lmms


def answer_all(
    tasks: list[Any], reply: Answerer, **settings: Any
) -> tuple[FakeModel, dict[str, list[Answer]]]:
    """Answer tasks with a fake model; returns it and its answers by benchmark."""
    model = FakeModel(reply)
    return model, answer_tasks(model, tasks, **settings)
