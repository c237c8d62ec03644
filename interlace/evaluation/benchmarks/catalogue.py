"""The published benchmarks, as lmms-eval 0.7 runs them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from interlace.errors import InputError
from interlace.params.evaluating import key


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of the INTERLACE paper (Table 1).

    Attributes:
        name: as the paper writes it.
        task: name in lmms-eval.
        folder: of the task, below lmms-eval's `tasks` folder.
        category: as in the paper.
        metric: key of a row's score in the results of the task.
        columns: of the hub's data set that the task reads.
        field: key of the number, where the task's result is a record and not a number.
        split: of the hub's data set.
        configuration: of the hub's data set, if it has several.
        judge: when another model judges an answer: never, where it names no option, or always.
        all_rows: True where the published score is a count out of all rows, so that fewer rows
            have no score.
    """

    name: str
    task: str
    folder: str
    category: str
    metric: str
    columns: tuple[str, ...]
    field: str | None = None
    split: str = "test"
    configuration: str | None = None
    judge: Literal["never", "fallback", "always"] = "never"
    all_rows: bool = False


TEXT_CHART, GVQA, PERCEPTION, INST_SCI = "Text/Chart", "GVQA", "Perception", "Inst&Sci"
EXACT = "exact_match"
QUESTION = ("image", "question", "answer")
LETTERS = ("A", "B", "C", "D")
MMBENCH = (*QUESTION, *LETTERS, "index", "hint", "category", "L2-category", "source", "split")
HRBENCH = (*QUESTION, *LETTERS, "index", "category", "cycle_category")


def _hrbench(size: str) -> Benchmark:
    return Benchmark(
        f"HRBench{size}",
        f"hrbench{size.lower()}",
        "hrbench",
        PERCEPTION,
        "average",
        HRBENCH,
        field="gpt_score",
        split=f"hrbench_{size.lower()}",
        configuration="hrbench_version_split",
        judge="fallback",
    )


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("AI2D", "ai2d", "ai2d", TEXT_CHART, EXACT, (*QUESTION, "options")),
        Benchmark(
            "ChartQA", "chartqa", "chartqa", TEXT_CHART, "relaxed_overall", (*QUESTION, "type")
        ),
        Benchmark(
            "OCRBench",
            "ocrbench",
            "ocrbench",
            TEXT_CHART,
            "ocrbench_accuracy",
            (*QUESTION, "dataset", "question_type"),
            field="score",
            all_rows=True,
        ),
        Benchmark(
            "TextVQA",
            "textvqa_val",
            "textvqa",
            TEXT_CHART,
            EXACT,
            ("image", "question", "answers", "question_id"),
            split="validation",
        ),
        Benchmark(
            "MMBench",
            "mmbench_en_dev_static",
            "mmbench",
            GVQA,
            "gpt_eval_score",
            MMBENCH,
            split="dev",
            configuration="en",
        ),
        Benchmark(
            "POPE", "pope", "pope", GVQA, "pope_accuracy", (*QUESTION, "question_id"), field="score"
        ),
        Benchmark("RealWorldQA", "realworldqa", "realworldqa", GVQA, EXACT, QUESTION),
        _hrbench("4K"),
        _hrbench("8K"),
        Benchmark(
            "VStar",
            "vstar_bench",
            "vstar_bench",
            PERCEPTION,
            "vstar_overall_acc",
            ("image", "text", "label", "category", "question_id"),
            field="score",
        ),
        Benchmark(
            "MIABench",
            "mia_bench",
            "mia_bench",
            INST_SCI,
            "gpt_eval_score",
            ("image", "instruction", "components", "component_weight"),
            field="total_score",
            judge="always",
        ),
        Benchmark(
            "ScienceQA",
            "scienceqa",
            "scienceqa",
            INST_SCI,
            EXACT,
            ("image", "question", "choices", "answer", "hint"),
            configuration="ScienceQA-FULL",
        ),
    )
}
NO_JUDGE = "another model judges its answers, and no judge is configured; set evaluate.judge"
NOT_MATCHED = "an answer that names no option is wrong; a judge would match it (evaluate.judge)"


def find_benchmark(name: str) -> Benchmark:
    """Look up a benchmark by name; case and punctuation do not count.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    by_key = {key(benchmark.name): benchmark for benchmark in BENCHMARKS.values()}
    if benchmark := by_key.get(key(name)):
        return benchmark
    nearest = difflib.get_close_matches(key(name), by_key, n=1, cutoff=0)[0]
    raise InputError(
        f"evaluate.benchmarks = {name!r}: no such benchmark; did you mean"
        f" {by_key[nearest].name!r}? Known: {', '.join(BENCHMARKS)}"
    )
