"""The evaluation of one checkpoint: its answers to all benchmarks, and their scores."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.evaluation.benchmarks import heldout
from interlace.evaluation.benchmarks.catalogue import NO_JUDGE, NOT_MATCHED
from interlace.evaluation.run.engines import check_servers, opened
from interlace.evaluation.run.isolation import isolated
from interlace.evaluation.run.journal import Journal
from interlace.evaluation.run.judge import Grader
from interlace.evaluation.run.validate import published_benchmarks, skip_reason, validate
from interlace.evaluation.scores.answers import Answer, benchmark_score, write_answers
from interlace.evaluation.scores.losses import loss_of
from interlace.evaluation.scores.result import Evaluation, Reasoning, Score
from interlace.model.sampling import PUBLISHED
from interlace.params.evaluating import Evaluate
from interlace.system.distributed import meet, process_rank
from interlace.system.outputs import refusals_named
from interlace.system.resumable import unpacked_once

if TYPE_CHECKING:
    from interlace.evaluation.run.tasks import ScoredTask


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    *,
    params: Evaluate,
    model_name: str,
    dtype: str = "auto",
    answers_file: Path | None = None,
    scratch: Path | None = None,
    judgements: Path | None = None,
    served: Path | None = None,
) -> Evaluation:
    """Score one checkpoint.

    Args:
        checkpoint: any supported model; its folder may be a hub id.
        params: benchmarks, data, judge and generation settings.
        model_name: its name in the result: dense, pruned, tuned or reference.
        dtype: type to compute in; auto: bfloat16 on a GPU, float32 on a CPU.
        answers_file: file for all answers (see `answers`); the first process writes it.
        scratch: folder of the journal, from which a killed evaluation resumes; it belongs to this
            checkpoint, these parameters and this data. None: no journal.
        judgements: folder that caches the judge's replies; None: no cache.
        served: folder for the log of a server that is started, and for the replies of servers; it
            belongs to this checkpoint. None: they lie in `scratch`.

    Returns:
        Scores of 0 to 100 with standard errors and counts, skipped benchmarks with reasons, and
        the libraries, device and dtype, or the engine. No times, hosts or paths.

    Raises:
        InputError: `validate` refuses, data is not available, the judge refuses, or servers are
            down, refuse, or fail at too many answers.
    """
    validate(params)
    if process_rank() == 0:
        check_servers(params, model_name, checkpoint.folder)
    judge = Grader(params.judge, memory=judgements) if params.judge.url else None
    online = bool(params.benchmarks) and params.data is None
    with contextlib.ExitStack() as stack:
        stack.enter_context(isolated(offline=not online and checkpoint.folder.is_dir()))
        meet()  # before the first look at scratch, which the first process holds
        cache = stack.enter_context(_rows_cache(scratch))
        from interlace.evaluation.run.answering import answer_tasks

        with unpacked_once(cache), refusals_named(cache):
            tasks = list(_tasks(params, judge, cache))
        engine = stack.enter_context(
            opened(checkpoint, params, model_name, dtype=dtype, folder=served or scratch or cache)
        )
        answers = answer_tasks(engine.adapter, tasks, limit=params.limit, journal=Journal(scratch))
    if answers_file is not None and process_rank() == 0:
        write_answers((answer for rows in answers.values() for answer in rows), answers_file)
    categories = {task.benchmark: task.category for task in tasks}
    results = {name: benchmark_score(rows, categories[name]) for name, rows in answers.items()}
    scores = {name: score for name, score in results.items() if score}
    return Evaluation(
        model=model_name,
        scores=scores,
        skipped=_skipped(params, results),
        notes=_notes(params, scores) | _without_loss(params, tasks, answers),
        losses={name: loss for name, rows in answers.items() if (loss := loss_of(rows))},
        loss=loss_of(answer for rows in answers.values() for answer in rows),
        reasoning=_reasoning(params),
        **engine.facts,
    )


@contextlib.contextmanager
def _rows_cache(scratch: Path | None) -> Iterator[Path]:
    """Folder into which local data is unpacked, outside of all caches in the home folder."""
    if scratch is not None:
        yield scratch / "rows"
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _tasks(params: Evaluate, judge: Grader | None, cache: Path) -> Iterator[ScoredTask]:
    from interlace.evaluation.run.tasks import heldout_tasks, judged_tasks, published_task

    options = {"max_new_tokens": params.longest}
    if params.answers == "reasoning":
        options["seed"] = params.seed
    data = Path(params.data) if params.data else None
    for benchmark in published_benchmarks(params):
        if not skip_reason(benchmark, params):
            yield published_task(benchmark, data=data, cache=cache, judge=judge, **options)
    if params.heldout is not None:
        next_token = params.heldout_metric == "next-token"
        yield from heldout_tasks(
            Path(params.heldout), max_new_tokens=params.longest_heldout, next_token=next_token
        )
    if judge is not None:
        for file in params.judged:
            yield from judged_tasks(Path(file), judge, **options)


def _reasoning(params: Evaluate) -> Reasoning | None:
    """Say how benchmarks were answered, where with reasoning."""
    if params.answers == "direct":
        return None
    return Reasoning(max_new_tokens=params.longest, seed=params.seed, **PUBLISHED.as_settings())


def _skipped(params: Evaluate, results: Mapping[str, Score | None]) -> dict[str, str]:
    """Benchmarks without a score, and the reason."""
    skipped = {
        benchmark.name: reason
        for benchmark in published_benchmarks(params)
        if (reason := skip_reason(benchmark, params))
    }
    for file in params.judged if not params.judge.url else ():
        skipped |= dict.fromkeys(heldout.check_rows(Path(file)), NO_JUDGE)
    silent = [name for name, score in results.items() if score is None]
    return skipped | dict.fromkeys(silent, f"no row has {_unscored(params)}")


def _notes(params: Evaluate, scores: Mapping[str, Score]) -> dict[str, str]:
    """Remarks on scores, by benchmark."""
    notes = {
        benchmark.name: NOT_MATCHED
        for benchmark in published_benchmarks(params)
        if benchmark.judge == "fallback" and not params.judge.url
    }
    return notes | {
        name: f"{score.missing} rows have no {_unscored(params)} and count nowhere"
        for name, score in scores.items()
        if score.missing
    }


def _unscored(params: Evaluate) -> str:
    """Return what rows without a score lack."""
    if params.opens_model:
        return "judgement"
    return "answer or judgement" if params.judge.url else "answer"


def _without_loss(
    params: Evaluate, tasks: Iterable[ScoredTask], answers: Mapping[str, Sequence[Answer]]
) -> dict[str, str]:
    """Remarks on held-out sources, some rows of which have no loss; servers measure none at all."""
    if not params.opens_model:
        return {}
    rows = {task.benchmark: answers[task.benchmark] for task in tasks if task.conversation}
    counts = {name: sum(row.loss is None for row in source) for name, source in rows.items()}
    return {
        name: f"{count} rows have no loss: the model's chat template rewrites earlier turns"
        for name, count in counts.items()
        if count
    }
