"""Our numbers beside published ones, where the same model, method and ratio were run.

`published.csv` holds the numbers of both papers (arXiv 2511.19676 and 2603.20275), one a line:
paper, table, model, method, ratio, benchmark, cot (on: answers of up to 16,384 tokens; off: the
same, cut at 50; empty: not said), metric and value. Scores, what of a reference's scores is
retained, and how much sooner the first token comes are compared. A published number is shown only
where the setting is the same; elsewhere notes say what differs. Two numbers agree when they are no
further apart than chance would have it for two samples of the size of ours: |ours - published| <=
2 * sqrt(2) * our standard error.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from interlace.errors import InputError
from interlace.evaluation.benchmarks.catalogue import PUBLISHED as PAPER
from interlace.evaluation.benchmarks.catalogue import published_name
from interlace.evaluation.scores.result import Score
from interlace.evaluation.scores.significance import LEVEL
from interlace.params.evaluating import key
from interlace.params.whole import Params
from interlace.report.facts.setting import LENGTH, setting_differences
from interlace.report.facts.speed import Speed

PUBLISHED = Path(__file__).with_suffix(".csv")  # in a clone, a link to data/published.csv
COLUMNS = ("paper", "table", "model", "method", "ratio", "benchmark", "cot", "metric", "value")
METHODS = {
    "dense": "dense",
    "dense_ft": "dense-ft",
    "dense_sft": "dense-sft",
}  # of models that are not pruned
SCORE, FIRST_TOKEN = "score", "first token"  # what is compared; else "of dense", "of dense-ft"
# Table 7 gives retention of Dense-FT (88.9% at 25%), table 8 and the model cards that of Dense
# (86.1%); both follow from the scores in table 5.
OF_DENSE_FT = {("2511.19676", "7")}
ON_A_SHARE = re.compile(r"(.+) \(fine-tuned on ([\d.]+)% FineVision\)")
SUFFIXES = ("-instruct", "-thinking")


@dataclass(frozen=True)
class Beside:
    """One number of ours and the published one.

    Attributes:
        model: "dense", "tuned", "dense-ft" or "dense-sft".
        benchmark: its name; all: the mean over the twelve.
        ours: a score or retention, 0 to 100, or a speedup; and
        error: its standard error, if it has one.
        published: the same of the paper.
        source: the paper and its table.
        quantity: `SCORE`, `FIRST_TOKEN` (its speedup), or what retention is of.
        differences: what differs between the two settings; empty where they are the same.
    """

    model: str
    benchmark: str
    ours: float
    error: float | None
    published: float
    source: str
    quantity: str = SCORE
    differences: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool | None:
        """True if the difference is within chance; None without an error or the same setting."""
        if self.error is None or self.differences:
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
            numbers = list(rows)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; it comes with the repository") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable table ({error})") from None
    for row in numbers:
        for column in ("ratio", "value"):
            if not _is_number(row[column]):
                raise InputError(f"{path}: {column} = {row[column]!r}: not a number; correct it")
    return numbers


def _is_number(cell: str | None) -> bool:
    try:
        return math.isfinite(float(cell or ""))
    except ValueError:
        return False


def beside_published(
    scores: Mapping[str, Mapping[str, Score]],
    params: Params,
    ratio: float,
    published: Sequence[Mapping[str, str]],
) -> list[Beside]:
    """Pair each score of this run with the published one.

    Args:
        scores: by model (dense, tuned, perhaps dense_ft or dense_sft) and benchmark. A merely
            pruned model has no published counterpart: the papers tune theirs.
        params: of this run.
        ratio: share of the layers that was asked for.
        published: rows of `read_published`.
    """
    pairs = []
    for row in _alike(published, "score_percent", params):
        for model, by_benchmark in scores.items():
            method = METHODS.get(model, params.method)
            plan_ratio = 0.0 if model in METHODS else ratio
            same = row["method"] == method and math.isclose(float(row["ratio"]), plan_ratio)
            if model == "pruned" or not same:
                continue
            pairs += [
                Beside(
                    model.replace("_", "-"),
                    name,
                    score.score,
                    score.standard_error,
                    float(row["value"]),
                    _source(row),
                    differences=setting_differences(row, params, [name]),
                )
                for name, score in by_benchmark.items()
                if published_name(name) == row["benchmark"]
            ]
    return _once(pairs)


def retention_beside(
    summary: Mapping[str, Any],
    params: Params,
    ratio: float,
    published: Sequence[Mapping[str, str]],
) -> list[Beside]:
    """Pair the tuned model's retention with the published one of the same reference.

    The mean over benchmarks is compared where all twelve of the paper count in it, and rows that
    name the share of FineVision that they were trained on where ours was as large.

    Args:
        summary: what `summarise` returned, with the intervals of retention.
        params: of this run.
        ratio: share of the layers that was asked for.
        published: rows of `read_published`.
    """
    pairs = []
    for row in _alike(published, "relative_performance_percent", params):
        reference = "dense_ft" if (row["paper"], row["table"]) in OF_DENSE_FT else "dense"
        retention = "retention_tuned" + ("" if reference == "dense" else f"_of_{reference}")
        if not _same_run(row, params, ratio):
            continue
        ours = _retained(summary, retention)
        compared = _on_this_share(row["benchmark"], params)
        for name, value in ours.items():
            if value is None or published_name(name) != compared:
                continue
            names = [*ours] if name == "all" else [name]
            ends = [summary.get(f"{retention}_{end}") for end in ("low", "high")]
            error = _error(ends, LEVEL) if name == "all" else None
            metric, theirs = f"of {reference.replace('_', '-')}", float(row["value"])
            differing = setting_differences(row, params, names, _share(row))
            pairs.append(
                Beside("tuned", name, value, error, theirs, _source(row), metric, differing)
            )
    return _once(pairs)


def _retained(summary: Mapping[str, Any], retention: str) -> dict[str, float | None]:
    """Return retention by benchmark, and of all where these are the paper's twelve."""
    start = f"{retention}/"
    ours = {name[len(start) :]: value for name, value in summary.items() if name.startswith(start)}
    twelve = sorted(map(published_name, ours)) == sorted(PAPER)
    return ours | ({"all": summary.get(retention)} if twelve else {})


def speedup_beside(
    speed: Speed | None,
    params: Params,
    ratio: float,
    published: Sequence[Mapping[str, str]],
) -> list[Beside]:
    """Pair the first-token speedup of each benchmark's typical request with that of table 4.

    Args:
        speed: the measured times.
        params: of this run; `ttft.shapes` names the benchmarks.
        ratio: share of the layers that was asked for.
        published: rows of `read_published`.
    """
    pairs = []
    for row in _alike(published, "ttft_speedup", params):
        name = row["benchmark"]
        timing = speed.benchmarks.get(name) if speed else None
        if name not in params.ttft.shapes or not _same_run(row, params, ratio):
            continue
        if timing and timing.speedup is not None:
            error = _error((timing.low, timing.high), params.ttft.confidence)
            value = float(row["value"])
            pairs.append(
                Beside("tuned", name, timing.speedup, error, value, _source(row), FIRST_TOKEN)
            )
    return pairs


def _alike(
    published: Sequence[Mapping[str, str]], metric: str, params: Params
) -> Iterator[Mapping[str, str]]:
    """Yield published values of one metric and of the same model."""
    name = key(_family(params.model.id))
    for row in published:
        if row["metric"] == metric and key(row["model"]) == name:
            yield row


def _same_run(row: Mapping[str, str], params: Params, ratio: float) -> bool:
    return row["method"] == params.method and math.isclose(float(row["ratio"]), ratio)


def _on_this_share(benchmark: str, params: Params) -> str | None:
    """Return a row's benchmark; None where it was trained on another share than this run."""
    if match := ON_A_SHARE.fullmatch(benchmark):
        same = math.isclose(float(match[2]), 100 * params.data.share)
        return match[1] if same else None
    return benchmark


def _share(row: Mapping[str, str]) -> float:
    """Return the share of FineVision that a row's model was tuned on: 1%, unless it says so."""
    match = ON_A_SHARE.fullmatch(row["benchmark"])
    return float(match[2]) / 100 if match else 0.01


def _error(ends: Sequence[float | None], level: float) -> float | None:
    """Compute the standard error behind an interval."""
    low, high = ends
    if low is None or high is None:
        return None
    return (high - low) / (2 * NormalDist().inv_cdf((1 + level) / 2))


def _source(row: Mapping[str, str]) -> str:
    return f"{row['paper']}, table {row['table']}" if row["table"] else row["paper"]


def _once(pairs: Sequence[Beside]) -> list[Beside]:
    """Keep one of the numbers that a paper repeats, or gives for two lengths of answers.

    That of the same length is kept, else the first.
    """
    unique: dict[tuple[str, str, str, str], Beside] = {}
    for pair in sorted(pairs, key=_has_other_length):
        paper = pair.source.split(",")[0]
        unique.setdefault((pair.model, pair.benchmark, pair.quantity, paper), pair)
    kept_ids = {id(pair) for pair in unique.values()}
    return [pair for pair in pairs if id(pair) in kept_ids]


def _has_other_length(pair: Beside) -> bool:
    return any(difference.startswith(LENGTH) for difference in pair.differences)


def _family(model: str) -> str:
    """Name a model as papers do: Qwen/Qwen3-VL-8B-Instruct is Qwen3-VL-8B."""
    name = model.rstrip("/").rpartition("/")[2]
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name


HEADINGS = ("benchmark", "metric", "ours", "published", "agrees", "source")


def published_rows(pairs: Sequence[Beside]) -> Sequence[Sequence[str]]:
    """Return our numbers and the published ones as text, a row of `HEADINGS` each.

    Where settings differ there is no published number, but the numbers of `difference_notes`.
    """
    rows, numbers_of_notes = [], {text: n for n, text in enumerate(_distinct(pairs), start=1)}
    for pair in pairs:
        digits, unit = {SCORE: (1, ""), FIRST_TOKEN: (2, "x")}.get(pair.quantity, (1, "%"))
        error = "" if pair.error is None else f" ± {pair.error:.{digits}f}"
        apart = f"{pair.ours - pair.published:+.{digits}f}"
        agree = {True: "yes", False: apart, None: ""}[pair.agrees]
        published = f"{pair.published:.{digits}f}{unit}"
        if pair.differences:
            notes = sorted(numbers_of_notes[text] for text in pair.differences)
            published, agree = "", f"see {', '.join(map(str, notes))}"
        numbers = (f"{pair.ours:.{digits}f}{unit}{error}", published)
        metric = pair.model if pair.quantity == SCORE else pair.quantity
        rows.append((pair.benchmark, metric, *numbers, agree, pair.source))
    return rows


def difference_notes(pairs: Sequence[Beside]) -> list[str]:
    """Return what differs between this run and published ones, numbered as the rows refer to it."""
    notes = [f"{number}. {text}" for number, text in enumerate(_distinct(pairs), start=1)]
    return ["Settings that differ, so that numbers do not compare:", *notes] if notes else []


def _distinct(pairs: Sequence[Beside]) -> list[str]:
    return list(dict.fromkeys(text for pair in pairs for text in pair.differences))


def published_table(pairs: Sequence[Beside]) -> Table:
    """Show our numbers and the published ones in the terminal."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading in HEADINGS:
        right = heading in ("ours", "published")
        table.add_column(heading, justify="right" if right else "left")
    for row in published_rows(pairs):
        table.add_row(*row)
    table.caption, table.caption_justify = Text("\n".join(difference_notes(pairs))), "left"
    return table
