"""Our scores beside published ones, where the same model, method and ratio were run.

`data/published.csv` holds the numbers of both papers (arXiv 2511.19676 and 2603.20275), one a line:
paper, table, model, method, ratio, benchmark, cot (on: answers of up to 16,384 tokens; off: 50;
empty: not said), metric and value. Two scores agree when they are no further apart than chance
would have it for two samples of the size of ours: |ours - published| <= 2 * sqrt(2) * our standard
error. Prompts, extraction and judge differ between harnesses, so far-off scores of a dense model
say that the harness differs, and retention compares better than scores.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from interlace.errors import InputError
from interlace.evaluation.benchmarks import key
from interlace.evaluation.result import Score
from interlace.params import Params

PUBLISHED = Path("data/published.csv")
COLUMNS = ("paper", "table", "model", "method", "ratio", "benchmark", "cot", "metric", "value")
LONG = 16_384  # tokens of the papers' long answers
SHORT = 50  # ... and of their short ones
METHODS = {
    "dense": "dense",
    "dense_ft": "dense-ft",
    "dense_sft": "dense-sft",
}  # of models that are not pruned
SUFFIXES = ("-instruct", "-thinking")


@dataclass(frozen=True)
class Beside:
    """One score of ours and the published one.

    Attributes:
        model: "dense", "tuned", "dense_ft" or "dense_sft".
        benchmark: its name.
        ours: 0 to 100, and
        error: its standard error, if it has one.
        published: 0 to 100.
        source: the paper and its table.
    """

    model: str
    benchmark: str
    ours: float
    error: float | None
    published: float
    source: str

    @property
    def agrees(self) -> bool | None:
        """Whether the two are as near as chance allows; none without a standard error."""
        if self.error is None:
            return None
        return abs(self.ours - self.published) <= 2 * math.sqrt(2) * self.error


def read_published(path: Path = PUBLISHED) -> list[dict[str, str]]:
    """Read the published numbers.

    Raises:
        InputError: the file is not there, or holds something else.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if tuple(rows.fieldnames or ()) != COLUMNS:
                raise InputError(f"{path}: its columns should be {', '.join(COLUMNS)}")
            return list(rows)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; it comes with the repository") from None


def beside_published(
    scores: Mapping[str, Mapping[str, Score]],
    params: Params,
    ratio: float,
    published: Sequence[Mapping[str, str]],
) -> list[Beside]:
    """Every score of this run that was published too.

    Args:
        scores: by model (dense, tuned, perhaps dense_ft or dense_sft) and benchmark. A merely
            pruned model has no published counterpart: the papers tune theirs.
        params: of this run.
        ratio: share of the layers that was asked for.
        published: rows of `read_published`.
    """
    name = _family(params.model.id)
    found = []
    for row in published:
        if (
            row["metric"] != "score_percent"
            or key(row["model"]) != key(name)
            or not _same_length(row["cot"], params.evaluate.max_new_tokens)
        ):
            continue
        for model, by_benchmark in scores.items():
            method = METHODS.get(model, params.method)
            asked = 0.0 if model in METHODS else ratio
            score = by_benchmark.get(row["benchmark"])
            if score is None or model == "pruned":
                continue
            if row["method"] == method and math.isclose(float(row["ratio"]), asked):
                error, value = score["standard_error"], float(row["value"])
                source = f"{row['paper']}, table {row['table']}"
                found.append(Beside(model, row["benchmark"], score["score"], error, value, source))
    return _once(found)


def _once(found: Sequence[Beside]) -> list[Beside]:
    """Without numbers that another table of the same paper repeats."""
    seen: dict[tuple[str, str, float, str], Beside] = {}
    for one in found:
        paper = one.source.split(",")[0]
        seen.setdefault((one.model, one.benchmark, one.published, paper), one)
    return list(seen.values())


def _family(model: str) -> str:
    """A model's name as papers write it: Qwen/Qwen3-VL-8B-Instruct is Qwen3-VL-8B."""
    name = model.rstrip("/").rpartition("/")[2]
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name


def _same_length(cot: str, max_new_tokens: int) -> bool:
    """Whether answers may be as long as the published ones."""
    return {"on": max_new_tokens >= LONG, "off": max_new_tokens == SHORT}.get(cot, True)


HEADINGS = ("benchmark", "model", "ours", "published", "agree", "source")


def published_rows(found: Sequence[Beside]) -> Sequence[Sequence[str]]:
    """The two side by side as text, a row of `HEADINGS` each."""
    rows = []
    for one in found:
        error = "" if one.error is None else f" ± {one.error:.1f}"
        agree = {True: "yes", False: f"{one.ours - one.published:+.1f}", None: ""}[one.agrees]
        cells = (f"{one.ours:.1f}{error}", f"{one.published:.1f}", agree, one.source)
        rows.append((one.benchmark, one.model, *cells))
    return rows


def published_table(found: Sequence[Beside]) -> Table:
    """The same for the terminal."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in HEADINGS:
        right = heading in ("ours", "published")
        table.add_column(heading, justify="right" if right else "left")
    for row in published_rows(found):
        table.add_row(*row)
    return table
