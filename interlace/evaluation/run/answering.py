"""Have a model answer tasks, and score the answers.

Tasks, prompts, the extraction of answers and the rules of scoring are lmms-eval's. This module runs
them: prompts of all tasks share batches, processes share prompts, and every answer is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Protocol

from lmms_eval.api.reasoning import strip_reasoning_tags
from tqdm import tqdm

from interlace.distributed import gather, process_group, process_rank, world_size
from interlace.evaluation.run.journal import Journal
from interlace.evaluation.run.tasks import ScoredTask
from interlace.evaluation.scores.answers import Answer, answer_id

PATIENCE = timedelta(days=2)  # a process may wait so long for another, or for the judge
JUDGEMENTS = 8  # answers that are before the judge at the same time
REASONING = [["<think>", "</think>"], ["<analysis>", "</analysis>"]]  # as lmms-eval leaves it out


class Adapter(Protocol):
    """A model that answers lmms-eval's requests: see `adapter.CheckpointAdapter`."""

    task_dict: dict[str, Any]

    def batches(self, requests: Sequence[Any], *, known: Any, process: int, processes: int) -> Any:
        """Answers by place, batch by batch."""


def answer_tasks(
    model: Adapter,
    tasks: Sequence[ScoredTask],
    *,
    limit: int | None = None,
    journal: Journal | None = None,
) -> dict[str, list[Answer]]:
    """Answer and score all rows of all tasks; every process gets all answers.

    Args:
        model: the adapter.
        tasks: what to answer.
        limit: rows per task; none: all.
        journal: keeps answers as they are made, and brings those of a killed run.

    Returns:
        By benchmark, its answers in the order of its rows.
    """
    journal = journal or Journal(None)
    requests = []
    for scored in tasks:
        scored.task.build_all_requests(limit=limit, rank=0, world_size=1)
        model.task_dict[scored.task.config.task] = scored.task.dataset
        requests += scored.task.instances
    with process_group(PATIENCE):
        # what one process reads, all take as known: another may be writing by now
        known: dict[int, str] = gather(journal.read())[0]
        made = dict(known)
        for batch in model.batches(
            requests, known=known, process=process_rank(), processes=world_size()
        ):
            journal.save(batch, process_rank())
            made |= batch
        for part in gather(made):
            made |= part
        for place, request in enumerate(requests):
            request.resps = [made[place]]
        scores = {task.benchmark: _scored(task) for task in tasks} if process_rank() == 0 else None
        found: dict[str, list[Answer]] = gather(scores)[0]
    return found


def _scored(scored: ScoredTask) -> list[Answer]:
    """Score the answers to one task."""
    task = scored.task
    said = [request.resps[0] for request in task.instances]
    for request, answer in zip(task.instances, said, strict=True):
        request.resps = [strip_reasoning_tags(answer, REASONING)]
    task.apply_filters()
    rows = task.eval_docs_no_media
    progress = tqdm(
        total=len(task.instances),
        desc=f"judging {scored.benchmark}",
        unit="answer",
        disable=not scored.judged,
    )

    def answered(request: Any, said: str) -> Answer:
        row, place, prompt = rows[request.doc_id], request.doc_id, str(request.args[0])
        target = scored.target(row)
        answer = Answer(
            sample_id=answer_id(place, prompt, target),
            benchmark=scored.benchmark,
            question_id=scored.question_id(row, place),
            prompt=prompt,
            target=target,
            answer=said,
            score=scored.score(row, _taken_out(request.filtered_resps)),
        )
        progress.update()
        return answer

    with progress, ThreadPoolExecutor(JUDGEMENTS if scored.judged else 1) as pool:
        return list(pool.map(answered, task.instances, said))


def _taken_out(filtered: Mapping[str, Any]) -> str:
    """The answer that the task's filter took out of what the model said."""
    answer = next(iter(filtered.values()))
    return str(answer).strip()
