"""Answers, one row each, and the scores computed from them. No torch and no lmms-eval here.

`answers/NAME.parquet` holds, in the order of benchmarks and rows: `sample_id` (row number in the
benchmark's data and a hash of prompt and target), `benchmark`, `question_id` (shared by rows that
ask one question in several ways), `prompt`, `target`, `answer`, `score` (0 to 1; null without a
judgement) and `weight` (of the row in its benchmark's score: 1; its answer tokens where these are
scored; where F1 is the score, 1 for an answer "yes" and 1 for a true one). Rows whose true answer
was measured have `loss` (sum of the cross-entropies of its tokens, nats), `n_tokens` (their number,
the end of the turn included) and `choices` (the model's first choice in place of each, given the
true text before it); these are null in other rows.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import pyarrow as pa
import pyarrow.parquet as pq

from interlace.errors import MissingInputError
from interlace.evaluation.scores.result import Score
from interlace.system.outputs import whole

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("benchmark", pa.string()),
        ("question_id", pa.string()),
        ("prompt", pa.string()),
        ("target", pa.string()),
        ("answer", pa.string()),
        ("score", pa.float64()),
        ("weight", pa.int32()),
        ("loss", pa.float64()),
        ("n_tokens", pa.int32()),
        ("choices", pa.list_(pa.int32())),
    ]
)
NULLABLE = frozenset({"score", "loss", "n_tokens", "choices"})
ALL_RIGHT = frozenset({"MMBench", "MMBench-V1.1"})  # a question counts if all its rows are right


@dataclass(frozen=True)
class Answer:
    """A model's answer to one row; see the columns above."""

    sample_id: str
    benchmark: str
    question_id: str
    prompt: str
    target: str
    answer: str
    score: float | None
    weight: int = 1
    loss: float | None = None
    n_tokens: int | None = None
    choices: tuple[int, ...] | None = None


def answer_id(row: int, prompt: str, target: str) -> str:
    """Return a row's `sample_id`: its number in the benchmark's data, and a hash of content."""
    digest = hashlib.sha256(f"{prompt}\0{target}".encode()).hexdigest()
    return f"{row:06d}-{digest[:8]}"


def row_number(sample_id: str) -> int:
    """Return the number of a row in its benchmark's data, 0-based."""
    return int(sample_id.split("-")[0])


def write_answers(answers: Iterable[Answer], path: Path) -> None:
    """Write answers to Parquet, whole or not at all."""
    table = pa.Table.from_pylist([asdict(answer) for answer in answers], schema=SCHEMA)
    with whole(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_answers(path: Path) -> list[Answer]:
    """Read a file of answers.

    Raises:
        InputError: the file is missing, or does not hold answers.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise MissingInputError(path) from None
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise MissingInputError(path, f"not a Parquet file of answers: {reason}") from None
    if table.schema.names == SCHEMA.names[:7]:
        raise MissingInputError(
            path, "holds no losses, an earlier version wrote it: evaluate again"
        )
    if table.schema.names != SCHEMA.names:
        names = ", ".join(table.schema.names)
        raise MissingInputError(path, f"not answers; its columns are {names}")
    if not table.schema.equals(SCHEMA):
        raise MissingInputError(path, "not answers; its columns are of other types")
    choices = [ids if ids is None else tuple(ids) for ids in table["choices"].to_pylist()]
    rows = table.drop_columns(["choices"]).to_pylist()
    answers = [Answer(**row, choices=ids) for row, ids in zip(rows, choices, strict=True)]
    for number, answer in enumerate(answers):
        if problem := _damage(answer):
            raise MissingInputError(path, f"row {number}: {problem}")
    return answers


def _damage(answer: Answer) -> str:
    """Say what is wrong with a row; empty where nothing is."""
    if not re.match(r"\d+-", answer.sample_id or "", re.ASCII):
        return f"sample_id = {answer.sample_id!r} begins with no row number"
    if any(value is None for name, value in vars(answer).items() if name not in NULLABLE):
        return "a cell is empty"
    if answer.weight < 0:
        return f"weight = {answer.weight} is less than 0"
    presence = [value is not None for value in (answer.loss, answer.n_tokens, answer.choices)]
    if any(presence) != all(presence):
        return "loss, n_tokens and choices are not all there"
    if answer.loss is not None and not math.isfinite(answer.loss):
        return f"loss = {answer.loss} is not finite"
    if answer.choices is not None and not 0 < len(answer.choices) == answer.n_tokens:
        return f"choices has {len(answer.choices)} tokens, and n_tokens = {answer.n_tokens}"
    if answer.score is not None and not 0 <= answer.score <= 1:
        return f"score = {answer.score} is not between 0 and 1"
    return ""


def question_scores(answers: Iterable[Answer], benchmark: str) -> dict[str, float]:
    """Return the score of each question of one benchmark, 0 to 1.

    Args:
        answers: of the benchmark; answers without a score count nowhere.
        benchmark: its name; a question of MMBench counts if all its rows are right.
    """
    rows: dict[str, list[float]] = {}
    for answer in answers:
        if answer.score is not None:
            rows.setdefault(answer.question_id, []).append(answer.score)
    join = min if benchmark in ALL_RIGHT else fmean
    return {question: float(join(scores)) for question, scores in rows.items()}


def question_weights(answers: Iterable[Answer], benchmark: str) -> dict[str, int]:
    """Return the weight of each question in the score of one benchmark.

    Args:
        answers: with a score, of the benchmark.
        benchmark: its name; questions of MMBench weigh the same, others by their rows.
    """
    weights: Counter[str] = Counter()
    for answer in answers:
        weights[answer.question_id] += answer.weight
    return dict.fromkeys(weights, 1) if benchmark in ALL_RIGHT else dict(weights)


def benchmark_score(answers: Sequence[Answer], category: str) -> Score | None:
    """Return the score of one benchmark; None if no row has a score.

    The rows of one question are not independent, so questions are clusters in the standard error.

    Args:
        answers: to all rows of one benchmark.
        category: of the benchmark.
    """
    judged = [answer for answer in answers if answer.score is not None]
    if not judged:
        return None
    name = judged[0].benchmark
    questions = question_scores(judged, name)
    weights = question_weights(judged, name)
    mean = sum(questions[question] * weight for question, weight in weights.items())
    mean /= sum(weights.values()) or 1  # F1 without any "yes" is 0
    return Score(
        score=100 * mean,
        standard_error=_standard_error(questions, weights, mean),
        n=len(questions) if name in ALL_RIGHT else len(judged),
        category=category,
        missing=len(answers) - len(judged),
    )


def _standard_error(
    questions: Mapping[str, float], weights: Mapping[str, int], mean: float
) -> float | None:
    """Cluster-robust standard error of the mean over rows, one cluster per question; 0 to 100."""
    clusters, n = len(questions), sum(weights.values())
    if clusters < 2 or n == 0:
        return None
    squares = sum((weights[name] * (value - mean)) ** 2 for name, value in questions.items())
    return 100 * math.sqrt(clusters / (clusters - 1) * squares) / n
