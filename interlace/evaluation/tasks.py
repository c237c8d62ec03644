"""Benchmarks as lmms-eval tasks, and one lmms-eval run over them.

This module imports lmms-eval (seconds): import it inside `isolation.isolated`.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmms_eval.tasks
import pyarrow as pa
import torch
from datasets import Dataset
from lmms_eval.api.model import lmms
from lmms_eval.api.task import ConfigurableMessagesTask
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.utils import load_yaml_config
from tenacity import RetryError

from interlace.chat import chat_messages
from interlace.errors import InputError
from interlace.evaluation import heldout
from interlace.evaluation.benchmarks import Benchmark
from interlace.evaluation.result import Score

SPLIT = "test"


@dataclass(frozen=True)
class ScoredTask:
    """An lmms-eval task and where to find its score: see `Benchmark`."""

    benchmark: str
    category: str
    task: Any
    metric: str
    scale: float


def _messages(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return chat_messages(row)[:-1]


def _question(row: Mapping[str, Any]) -> str:
    return heldout.question(row["texts"])


def _target(row: Mapping[str, Any]) -> str:
    return str(row["texts"][-1]["assistant"])


def _exact_match(row: Mapping[str, Any], answers: Sequence[str]) -> dict[str, float]:
    return {"exact_match": float(heldout.is_exact_match(answers[0], _target(row)))}


class HeldOutTask(ConfigurableMessagesTask):  # type: ignore[misc]
    """One source of a held-out file. Its rows are in memory, so nothing is written to a cache."""

    def __init__(self, source: str, rows: pa.Table, *, max_new_tokens: int) -> None:
        self._rows = Dataset(rows)
        config = {
            "task": f"heldout_{source}",  # apart from lmms-eval's own tasks
            "test_split": SPLIT,
            "output_type": "generate_until",
            "doc_to_messages": _messages,
            "doc_to_text": _question,
            "doc_to_target": _target,
            "process_results": _exact_match,
            "metric_list": [
                {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
            ],
            "generation_kwargs": {"max_new_tokens": max_new_tokens, "until": []},
        }
        super().__init__(config=config)

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        """Hand over the rows; those for scoring come without images."""
        self.dataset = {SPLIT: self._rows}
        self.dataset_no_image = {SPLIT: self._rows.remove_columns("images")}


def heldout_tasks(path: Path, *, max_new_tokens: int) -> list[ScoredTask]:
    """One task per source of a file in FineVision's schema."""
    return [
        ScoredTask(
            source,
            heldout.CATEGORY,
            HeldOutTask(source, rows, max_new_tokens=max_new_tokens),
            "exact_match,none",
            100,
        )
        for source, rows in heldout.read_sources(path).items()
    ]


def published_task(
    benchmark: Benchmark, *, max_new_tokens: int, override: Mapping[str, Any] | None = None
) -> ScoredTask:
    """A published benchmark as lmms-eval defines it, but for the length of answers.

    Args:
        benchmark: which.
        max_new_tokens: longest answer, tokens.
        override: keys of the task's configuration to replace, e.g. where its data is.

    Raises:
        InputError: its data cannot be had.
    """
    folder = Path(lmms_eval.tasks.__file__).parent / benchmark.folder
    manager = lmms_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False)
    config = load_yaml_config(manager.task_index[benchmark.task]["yaml_path"], mode="full")
    data = dict(config.get("dataset_kwargs") or {})
    data.pop("token", None)  # a stored token is used anyway; asking for one fails without
    given = config.get("generation_kwargs") or {}
    # lmms-eval stops at a blank line where a task names no stop, which would cut a long answer
    generation = {"max_new_tokens": max_new_tokens, "until": given.get("until") or []}
    config |= {"dataset_kwargs": data, "generation_kwargs": generation} | dict(override or {})
    try:
        task = ConfigurableMessagesTask(config=config)
    except (RetryError, OSError, ValueError) as error:
        cause = error.last_attempt.exception() if isinstance(error, RetryError) else error
        raise InputError(
            f"evaluate.benchmarks = {benchmark.name!r}: cannot open its data"
            f" ({config['dataset_path']}): {' '.join(str(cause).split())}"
        ) from None
    return ScoredTask(benchmark.name, benchmark.category, task, benchmark.metric, benchmark.scale)


def _number(value: Any, scale: float) -> float | None:
    """A result on the scale of 0 to 100; none where lmms-eval has none ("N/A", NaN)."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value) * scale


def _score(run: ScoredTask, found: Mapping[str, Any]) -> Score | None:
    name = run.task.config.task
    results = found["results"].get(name, {})
    score = _number(results.get(run.metric), run.scale)
    if score is None:
        return None
    metric, key = run.metric.split(",")
    return {
        "score": score,
        "standard_error": _number(results.get(f"{metric}_stderr_clt,{key}"), run.scale),
        "n": int(found["n-samples"][name]["effective"]),
        "category": run.category,
    }


def _join_processes() -> None:
    """Meet the other processes that torchrun started, if it did: each answers its share."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        gpu = torch.cuda.is_available()
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")


def run_tasks(
    model: lmms, runs: Sequence[ScoredTask], *, limit: int | None = None
) -> tuple[dict[str, Score], dict[str, str]]:
    """Answer and score all tasks in one lmms-eval run, so that batches mix them.

    Args:
        model: the adapter; lmms-eval frees its weights when all answers are there.
        runs: the tasks.
        limit: rows per task; none: all.

    Returns:
        Scores by benchmark, and the benchmarks without one with the reason.
    """
    _join_processes()
    with tempfile.TemporaryDirectory() as scratch:  # where tasks leave their submission files
        found = simple_evaluate(
            model=model,
            tasks=[run.task for run in runs],
            task_manager=lmms_eval.tasks.TaskManager(include_defaults=False),
            limit=limit,
            bootstrap_iters=0,
            log_samples=False,
            process_docs_parallel=1,
            distributed_executor_backend="torchrun",
            cli_args=argparse.Namespace(output_path=scratch, process_with_media=False),
        )
    if model.world_size > 1:  # only the first process has the results
        box = [found and {key: found[key] for key in ("results", "n-samples")}]
        torch.distributed.broadcast_object_list(box, src=0)
        found = box[0]
    scores = {run.benchmark: _score(run, found) for run in runs}
    missing = {name: "lmms-eval gave no score" for name, score in scores.items() if score is None}
    return {name: score for name, score in scores.items() if score is not None}, missing
