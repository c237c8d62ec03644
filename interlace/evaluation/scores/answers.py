"""Answers, one row each, and the scores made of them. No torch and no lmms-eval here.

`answers/NAME.parquet` holds, in the order of benchmarks and rows: `sample_id` (the row's place in
its benchmark's data and a hash of what was asked), `benchmark`, `question_id` (shared by rows that
ask one question in several ways), `prompt`, `target`, `answer` and `score` (0 to 1; null where a
judge gave no judgement).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import pyarrow as pa
import pyarrow.parquet as pq

from interlace.errors import InputError
from interlace.evaluation.scores.result import Score
from interlace.outputs import whole

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("benchmark", pa.string()),
        ("question_id", pa.string()),
        ("prompt", pa.string()),
        ("target", pa.string()),
        ("answer", pa.string()),
        ("score", pa.float64()),
    ]
)
ALL_RIGHT = frozenset({"MMBench"})  # a question counts if each of its rows is right


@dataclass(frozen=True)
class Answer:
    """What a model answered to one row; see the columns above."""

    sample_id: str
    benchmark: str
    question_id: str
    prompt: str
    target: str
    answer: str
    score: float | None


def answer_id(place: int, prompt: str, target: str) -> str:
    """The name of a row: its place in its benchmark's data, and a hash of what was asked."""
    asked = hashlib.sha256(f"{prompt}\0{target}".encode()).hexdigest()
    return f"{place:06d}-{asked[:8]}"


def row_number(sample_id: str) -> int:
    """The row's place in its benchmark's data."""
    return int(sample_id.split("-")[0])


def write_answers(answers: Iterable[Answer], path: Path) -> None:
    """Write answers to Parquet, whole or not at all."""
    table = pa.Table.from_pylist([asdict(answer) for answer in answers], schema=SCHEMA)
    with whole(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_answers(path: Path) -> list[Answer]:
    """Read what `write_answers` wrote.

    Raises:
        InputError: it is not there, or is something else.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run `dvc repro evaluate`") from None
    except (pa.ArrowInvalid, OSError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{path}: not a Parquet file of answers: {said}") from None
    if table.schema.names != SCHEMA.names:
        raise InputError(f"{path}: not answers; its columns are {', '.join(table.schema.names)}")
    return [Answer(**row) for row in table.to_pylist()]


def question_scores(answers: Iterable[Answer], benchmark: str) -> dict[str, float]:
    """What each question of one benchmark scores, 0 to 1.

    Args:
        answers: to its rows; those without a score count nowhere.
        benchmark: its name; MMBench's questions count if each of their rows is right.
    """
    rows: dict[str, list[float]] = {}
    for answer in answers:
        if answer.score is not None:
            rows.setdefault(answer.question_id, []).append(answer.score)
    join = min if benchmark in ALL_RIGHT else fmean
    return {question: float(join(scores)) for question, scores in rows.items()}


def benchmark_score(answers: Sequence[Answer], category: str) -> Score | None:
    """The score of one benchmark; none if no row has one.

    The standard error is of a mean over questions, whose rows are not independent.

    Args:
        answers: to the rows of one benchmark.
        category: of the benchmark.
    """
    judged = [answer for answer in answers if answer.score is not None]
    if not judged:
        return None
    name = judged[0].benchmark
    questions = question_scores(judged, name)
    rows = Counter(answer.question_id for answer in judged)
    asked = dict.fromkeys(questions, 1) if name in ALL_RIGHT else rows
    n = sum(asked.values())
    mean = sum(questions[question] * count for question, count in asked.items()) / n
    return Score(
        score=100 * mean,
        standard_error=_standard_error(questions, asked, mean),
        n=n,
        category=category,
        missing=len(answers) - len(judged),
    )


def _standard_error(
    questions: Mapping[str, float], asked: Mapping[str, int], mean: float
) -> float | None:
    """Of the mean over rows that come in clusters, one for each question; 0 to 100."""
    clusters, n = len(questions), sum(asked.values())
    if clusters < 2:
        return None
    squares = sum((asked[name] * (value - mean)) ** 2 for name, value in questions.items())
    return 100 * math.sqrt(clusters / (clusters - 1) * squares) / n
