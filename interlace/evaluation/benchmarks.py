"""The published benchmarks, as lmms-eval 0.7 runs them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from interlace.errors import InputError


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of the INTERLACE paper (Table 1).

    Attributes:
        name: as the paper writes it.
        task: lmms-eval's task.
        folder: where lmms-eval keeps that task, below its `tasks` folder.
        metric: key of the score among the task's results.
        scale: factor that takes the score to 0 to 100.
        judge: whether answers are judged by another model: never, where an answer cannot be
            parsed, or always.
        category: the paper's.
        needs_all_rows: the score is divided by a constant, so part of the rows means nothing.
    """

    name: str
    task: str
    folder: str
    metric: str
    scale: float
    judge: Literal["never", "fallback", "always"]
    category: str
    needs_all_rows: bool = False


TEXT_CHART, GVQA, PERCEPTION, INST_SCI = "Text/Chart", "GVQA", "Perception", "Inst&Sci"
EXACT = "exact_match,none"

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("AI2D", "ai2d", "ai2d", "exact_match,flexible-extract", 100, "never", TEXT_CHART),
        Benchmark(
            "ChartQA", "chartqa", "chartqa", "relaxed_overall,none", 100, "never", TEXT_CHART
        ),
        Benchmark(
            "OCRBench",
            "ocrbench",
            "ocrbench",
            "ocrbench_accuracy,none",
            100,
            "never",
            TEXT_CHART,
            needs_all_rows=True,
        ),
        Benchmark("TextVQA", "textvqa_val", "textvqa", EXACT, 100, "never", TEXT_CHART),
        Benchmark(
            "MMBench", "mmbench_en_dev_static", "mmbench", "gpt_eval_score,none", 1, "never", GVQA
        ),
        Benchmark("POPE", "pope", "pope", "pope_accuracy,none", 100, "never", GVQA),
        Benchmark("RealWorldQA", "realworldqa", "realworldqa", EXACT, 100, "never", GVQA),
        Benchmark("HRBench4K", "hrbench4k", "hrbench", "average,none", 100, "fallback", PERCEPTION),
        Benchmark("HRBench8K", "hrbench8k", "hrbench", "average,none", 100, "fallback", PERCEPTION),
        Benchmark(
            "VStar", "vstar_bench", "vstar_bench", "vstar_overall_acc,none", 1, "never", PERCEPTION
        ),
        Benchmark(
            "MIABench", "mia_bench", "mia_bench", "gpt_eval_score,none", 100, "always", INST_SCI
        ),
        Benchmark("ScienceQA", "scienceqa", "scienceqa", EXACT, 100, "never", INST_SCI),
    )
}
NO_JUDGE = {
    "always": "its answers are judged by another model, and no judge is configured",
    "fallback": "answers that it cannot parse are judged by another model, and no judge is"
    " configured",
}


def _key(name: str) -> str:
    letters = name.casefold().replace("*", "star")
    return "".join(letter for letter in letters if letter.isalnum())


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name; case and punctuation do not count (V*, MIA-Bench).

    Raises:
        InputError: there is none; the message names the nearest.
    """
    by_key = {_key(known): benchmark for known, benchmark in BENCHMARKS.items()}
    if benchmark := by_key.get(_key(name)):
        return benchmark
    nearest = difflib.get_close_matches(_key(name), by_key, n=1, cutoff=0)[0]
    raise InputError(
        f"evaluate.benchmarks = {name!r}: no such benchmark; did you mean"
        f" {by_key[nearest].name!r}? Known: {', '.join(BENCHMARKS)}"
    )


def without_judge(benchmark: Benchmark) -> str | None:
    """Why a benchmark cannot run without a judge; none if it can."""
    return NO_JUDGE.get(benchmark.judge)
