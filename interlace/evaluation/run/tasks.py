"""The lmms-eval tasks of benchmarks.

This module imports lmms-eval (seconds): import it inside `isolation.isolated`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmms_eval.tasks
import pyarrow as pa
from datasets import Dataset, Image, List
from lmms_eval.api.task import ConfigurableMessagesTask
from lmms_eval.utils import load_yaml_config
from tenacity import RetryError

from interlace.errors import InputError
from interlace.evaluation.benchmarks import heldout
from interlace.evaluation.benchmarks.catalogue import Benchmark
from interlace.evaluation.benchmarks.files import benchmark_files
from interlace.evaluation.benchmarks.prompts import reasoning_prompt
from interlace.evaluation.run import scoring
from interlace.evaluation.run.judge import Grader
from interlace.evaluation.run.scoring import Row, Scorer
from interlace.model.chat import chat_messages
from interlace.model.images import enlarged, open_image
from interlace.model.sampling import GREEDY, PUBLISHED

SPLIT = "test"


@dataclass(frozen=True)
class ScoredTask:
    """An lmms-eval task with the rule that scores its answers.

    Attributes:
        benchmark: its name.
        category: of the benchmark.
        task: lmms-eval's, which forms prompts and extracts answers from the model's text.
        score: (row, answer) -> score.
        target: row -> true answer.
        question_id: (row, row number) -> id of its question.
        judged: True if scoring may wait for a judge.
        conversation: row -> messages that end with the true answer, on which the loss is measured;
            None: no loss.
        next_token: True if the share of the true answer's tokens that are the model's first choice
            is the score, so that nothing is generated.
        weight: (row, answer) -> weight of the row in the benchmark's score.
    """

    benchmark: str
    category: str
    task: Any
    score: Scorer
    target: Callable[[Row], str]
    question_id: Callable[[Row, int], str]
    judged: bool = False
    conversation: Callable[[Row], list[dict[str, Any]]] | None = None
    next_token: bool = False
    weight: Callable[[Row, str], int] = lambda row, answer: 1


def request_settings(
    max_new_tokens: int, *, until: Sequence[str] = (), seed: int | None = None
) -> dict[str, Any]:
    """Return the settings of a task's requests, which adapters read.

    Args:
        max_new_tokens: longest answer, tokens.
        until: texts before which an answer is cut.
        seed: of answers with reasoning, which are sampled; `answer_tasks` makes one of it for each
            row. None: direct answers, which are greedy and have no seed.
    """
    sampling = GREEDY if seed is None else PUBLISHED
    settings = {"max_new_tokens": max_new_tokens, "until": list(until), **sampling.as_settings()}
    return settings if seed is None else settings | {"seed": seed}


def _messages(row: Row) -> list[dict[str, Any]]:
    return chat_messages(row)[:-1]


def _question(row: Row) -> str:
    return heldout.question(row["texts"])


def _target(row: Row) -> str:
    return str(row["texts"][-1]["assistant"])


def _row_id(row: Row, number: int) -> str:
    return str(number)


def _exact_match(row: Row, answer: str) -> float:
    return float(heldout.is_exact_match(answer, _target(row)))


def _exact_matches(row: Row, answers: Sequence[str]) -> dict[str, float]:
    return {"exact_match": _exact_match(row, answers[0])}


class HeldOutTask(ConfigurableMessagesTask):  # type: ignore[misc]
    """One source of a held-out file. Its rows are in memory, so nothing is written to a cache."""

    def __init__(self, source: str, rows: pa.Table, settings: dict[str, Any]) -> None:
        self._rows = Dataset(rows)
        config = {
            "task": f"heldout_{source}",  # apart from lmms-eval's own tasks
            "test_split": SPLIT,
            "output_type": "generate_until",
            "doc_to_messages": _messages,
            "doc_to_text": _question,
            "doc_to_target": _target,
            "process_results": _exact_matches,
            "metric_list": [
                {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
            ],
            "generation_kwargs": settings,
        }
        super().__init__(config=config)

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        """Set the rows; those for scoring have no images."""
        self.dataset = {SPLIT: self._rows}
        self.dataset_no_image = {SPLIT: self._rows.remove_columns("images")}


def heldout_tasks(path: Path, *, max_new_tokens: int, next_token: bool = False) -> list[ScoredTask]:
    """Build one task per source of a file in FineVision's schema; each row gets a loss.

    Args:
        path: of the file.
        max_new_tokens: longest answer, tokens.
        next_token: score the true answer's tokens, without generating; else exact match.
    """
    return [
        ScoredTask(
            source,
            heldout.CATEGORY,
            HeldOutTask(source, rows, request_settings(0 if next_token else max_new_tokens)),
            _exact_match,
            _target,
            _row_id,
            conversation=chat_messages,
            next_token=next_token,
        )
        for source, rows in heldout.read_sources(path).items()
    ]


def judged_tasks(
    path: Path, judge: Grader, *, max_new_tokens: int, seed: int | None = None
) -> list[ScoredTask]:
    """Build one task per source of a file in FineVision's schema, graded by a judge.

    Args:
        path: of the file.
        judge: grades the answers.
        max_new_tokens: longest answer, tokens.
        seed: of sampled answers, see `request_settings`.
    """
    settings = request_settings(max_new_tokens, seed=seed)

    def grade(row: Row, answer: str) -> float | None:
        correct = judge.is_correct(_question(row), _target(row), answer)
        return None if correct is None else float(correct)

    return [
        ScoredTask(
            source,
            heldout.JUDGED,
            HeldOutTask(source, rows, settings),
            grade,
            _target,
            _row_id,
            judged=True,
        )
        for source, rows in heldout.read_sources(path).items()
    ]


@dataclass
class OneImage(Image):  # type: ignore[misc]
    """An image column that `open_image` opens, and no stage otherwise."""

    def decode_example(self, value: Any, token_per_repo_id: Any = None) -> Any:
        """Return plain RGB."""
        return open_image(value)


class BenchmarkTask(ConfigurableMessagesTask):  # type: ignore[misc]
    """A published benchmark; its images are decoded however they are stored."""

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        """Open the rows; those for scoring have no images."""
        super().download(dataset_kwargs)
        for split in list(self.dataset):
            rows = self.dataset[split]
            for name, feature in rows.features.items():
                if _holds_images(feature):
                    rows = rows.cast_column(name, OneImage())
                elif isinstance(feature, List) and _holds_images(feature.feature):
                    rows = rows.cast_column(name, List(OneImage()))
            media = [name for name in ("image", "images") if name in rows.column_names]
            self.dataset[split] = rows
            self.dataset_no_image[split] = rows.remove_columns(media)


def _holds_images(feature: Any) -> bool:
    return isinstance(feature, Image) or (
        isinstance(feature, dict) and feature.keys() == {"bytes", "path"}
    )


def published_task(
    benchmark: Benchmark,
    *,
    max_new_tokens: int,
    seed: int | None = None,
    data: Path | None = None,
    cache: Path | None = None,
    judge: Grader | None = None,
) -> ScoredTask:
    """Build the task of a published benchmark as lmms-eval defines it, but for length and prompt.

    Args:
        benchmark: to build.
        max_new_tokens: longest answer, tokens.
        seed: of answers with reasoning, see `request_settings`; None: direct answers.
        data: folder of local data, see `benchmarks.files`; None: from the hub.
        cache: folder into which local data is unpacked; None: the default of `datasets`.
        judge: grades answers where the benchmark needs it; None: nobody.

    Raises:
        InputError: its data is not available.
    """
    config = _config(benchmark, max_new_tokens, seed)
    if data is not None:
        config |= _local_data(benchmark, data, cache)
    try:
        task = BenchmarkTask(config=config)
    except (RetryError, OSError, ValueError) as error:
        cause = error.last_attempt.exception() if isinstance(error, RetryError) else error
        raise InputError(
            f"evaluate.benchmarks = {benchmark.name!r}: cannot open its data"
            f" ({config['dataset_path']}): {' '.join(str(cause).split())}; connect, or point"
            " evaluate.data at a local copy"
        ) from None
    reasoning = seed is not None
    return ScoredTask(
        benchmark.name,
        benchmark.category,
        task,
        scoring.scorer(benchmark, _results(task), judge, reasoning=reasoning),
        lambda row: scoring.target(benchmark, row),
        lambda row, number: scoring.question_id(benchmark, row, number),
        judged=judge is not None and benchmark.judge != "never",
        weight=scoring.weigher(benchmark, reasoning=reasoning),
    )


def _config(benchmark: Benchmark, max_new_tokens: int, seed: int | None) -> dict[str, Any]:
    """Return lmms-eval's configuration of a task with the run's way of answering."""
    config = definition(benchmark)
    task_settings = config.get("generation_kwargs") or {}
    # lmms-eval stops at a blank line where a task names no stop, which would cut a long answer
    config["generation_kwargs"] = request_settings(
        max_new_tokens, until=task_settings.get("until") or (), seed=seed
    )
    if seed is not None:
        config["doc_to_text"] = lambda row, _=None: reasoning_prompt(benchmark, row)
        config.pop("filter_list", None)  # AI2D's would take "A. is wrong, ..." for A
    if benchmark.variant_of:
        config["task"] = benchmark.name  # adapters look rows up by it
    if benchmark.min_pixels:
        config["doc_to_visual"] = _enlarged(config["doc_to_visual"], benchmark.min_pixels)
    return config


def _enlarged(visual: Callable[[Row], list[Any]], min_pixels: int) -> Callable[[Row], list[Any]]:
    """Let a task show images of at least so many pixels, as Qwen3-VL's preprocessing has it."""
    return lambda row: [enlarged(image, min_pixels) for image in visual(row)]


def _results(task: Any) -> scoring.Results:
    """Return the task's own rule if it has one, else lmms-eval's rule for its metrics."""
    task_rule = task.config.process_results
    return task_rule if callable(task_rule) else task.process_results  # type: ignore[no-any-return]


def definition(benchmark: Benchmark) -> dict[str, Any]:
    """Read lmms-eval's configuration of a benchmark's task."""
    folder = Path(lmms_eval.tasks.__file__).parent / benchmark.folder
    manager = lmms_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False)
    path = manager.task_index[benchmark.task]["yaml_path"]
    config: dict[str, Any] = load_yaml_config(path, mode="full")
    data = dict(config.get("dataset_kwargs") or {})
    data.pop(
        "token", None
    )  # a stored token is used anyway; with token=True a missing one is an error
    return config | {"dataset_kwargs": data}


def _local_data(benchmark: Benchmark, folder: Path, cache: Path | None) -> dict[str, Any]:
    """Point a task's configuration to local files."""
    files = [str(path) for path in benchmark_files(folder, benchmark)]
    kwargs: dict[str, Any] = {"data_files": {benchmark.split: files}}
    if cache is not None:
        kwargs["cache_dir"] = str(cache)
    return {"dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": kwargs}
