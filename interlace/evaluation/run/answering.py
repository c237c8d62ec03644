"""Answers of a model to tasks, and their scores.

Tasks, prompts, the extraction of answers and the rules of scoring are lmms-eval's. This module runs
them: prompts of all tasks share batches, processes share prompts, and all answers are recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from lmms_eval.api.reasoning import strip_reasoning_tags
from tqdm import tqdm

from interlace.evaluation.run.journal import Journal, Reply
from interlace.evaluation.run.tasks import ScoredTask
from interlace.evaluation.scores.answers import Answer, answer_id
from interlace.printable import one_line
from interlace.samples.order import answer_seed
from interlace.system.distributed import gather, process_group, process_rank, world_size

JUDGEMENTS = 8  # answers that the judge grades at the same time
REASONING = [["<think>", "</think>"], ["<analysis>", "</analysis>"]]  # as lmms-eval removes it


class Adapter(Protocol):
    """A model that answers lmms-eval's requests.

    See `adapter.CheckpointAdapter` for one that is opened here, and `served.ServedAdapter` for one
    behind servers.
    """

    task_dict: dict[str, Any]
    conversations: dict[str, Any]  # by task, see `ScoredTask.conversation`

    def batches(self, requests: Sequence[Any], *, skip: Any, process: int, processes: int) -> Any:
        """Yield the replies of each batch by request index."""


def answer_tasks(
    model: Adapter,
    tasks: Sequence[ScoredTask],
    *,
    limit: int | None = None,
    journal: Journal | None = None,
) -> dict[str, list[Answer]]:
    """Answer and score all rows of all tasks; all processes get all answers.

    Args:
        model: the adapter.
        tasks: to answer.
        limit: rows per task; None: all.
        journal: saves each batch of answers, and holds those of a killed run.

    Returns:
        Answers by benchmark, in the order of its rows.
    """
    journal = journal or Journal(None)
    requests = []
    for scored in tasks:
        scored.task.build_all_requests(limit=limit, rank=0, world_size=1)
        name = scored.task.config.task
        model.task_dict[name] = scored.task.dataset
        if scored.conversation:
            model.conversations[name] = scored.conversation
        _seed_rows(scored)
        requests += scored.task.instances
    with process_group():
        # all processes take the first one's reading: another may be writing by now
        journal_replies: dict[int, Reply] = gather(journal.read())[0]
        replies = dict(journal_replies)
        for batch in model.batches(
            requests, skip=journal_replies, process=process_rank(), processes=world_size()
        ):
            journal.save(batch, process_rank())
            replies |= batch
        for replies_of_process in gather(replies):
            replies |= replies_of_process
        for index, request in enumerate(requests):
            request.resps = [replies[index]]
        scores = {task.benchmark: _score(task) for task in tasks} if process_rank() == 0 else None
        answers: dict[str, list[Answer]] = gather(scores)[0]
    return answers


def _row_id(scored: ScoredTask, request: Any) -> str:
    """Return the `sample_id` of the row that a request is about."""
    row = scored.task.eval_docs_no_media[request.doc_id]
    return answer_id(request.doc_id, str(request.args[0]), scored.target(row))


def _seed_rows(scored: ScoredTask) -> None:
    """Give each sampled answer a seed of its own: the same for all models, adapters and limits."""
    for request in scored.task.instances:
        settings = request.args[2]
        if "seed" in settings:
            settings["seed"] = answer_seed(settings["seed"], _row_id(scored, request))


def _score(scored: ScoredTask) -> list[Answer]:
    """Score the answers to one task."""
    task = scored.task
    replies: list[Reply] = [request.resps[0] for request in task.instances]
    for request, reply in zip(task.instances, replies, strict=True):
        request.resps = [strip_reasoning_tags(reply.text, REASONING)]
    task.apply_filters()
    rows = task.eval_docs_no_media
    progress = tqdm(
        total=len(task.instances),
        desc=one_line(f"judging {scored.benchmark}"),
        unit="answer",
        disable=not scored.judged,
    )

    def score(request: Any, reply: Reply) -> Answer:
        row, extracted = rows[request.doc_id], _extracted(request.filtered_resps)
        answer = Answer(
            sample_id=_row_id(scored, request),
            benchmark=scored.benchmark,
            question_id=scored.question_id(row, request.doc_id),
            prompt=str(request.args[0]),
            target=scored.target(row),
            answer=reply.text,
            score=_score_of(scored, row, extracted, reply),
            weight=len(reply.tokens) if scored.next_token else scored.weight(row, extracted),
            loss=reply.loss,
            n_tokens=None if reply.loss is None else len(reply.tokens),
            choices=None if reply.loss is None else tuple(reply.choices),
        )
        progress.update()
        return answer

    with progress, ThreadPoolExecutor(JUDGEMENTS if scored.judged else 1) as pool:
        return list(pool.map(score, task.instances, replies))


def _score_of(scored: ScoredTask, row: Any, extracted: str, reply: Reply) -> float | None:
    """Return the score of a reply, 0 to 1; `None`: it is missing, or has no judgement."""
    if reply.missing:
        return None
    if scored.next_token:
        return reply.accuracy
    return scored.score(row, extracted)


def _extracted(responses: Mapping[str, Any]) -> str:
    """Return the answer that the task's filter extracted from the model's text."""
    answer = next(iter(responses.values()))
    return str(answer).strip()
