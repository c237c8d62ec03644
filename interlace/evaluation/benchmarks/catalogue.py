"""The published benchmarks, as lmms-eval 0.7 runs them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from interlace.errors import InputError, did_you_mean, nearest_name
from interlace.params.evaluating import key

AnswerKind = Literal["option", "phrase", "yes-no", "text"]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of the INTERLACE paper (Table 1), or a variant of one.

    lmms-eval's edition bears the paper's name; a variant that is as the paper has it bears another.

    Attributes:
        name: of the benchmark, or of the variant.
        task: name in lmms-eval.
        folder: of the task, below lmms-eval's `tasks` folder.
        category: as in the paper.
        metric: key of a row's score in the results of the task.
        columns: of the hub's data set that the task reads.
        hub_id: of the data set; None: it is not on the hub.
        field: key of the number, where the task's result is a record and not a number.
        split: of the hub's data set.
        configuration: of the hub's data set, if it has several.
        judge: when another model judges an answer: never, where it names no option, or always.
        answer: the kind of true answers; how the final one is found in a long answer.
        all_rows: True where the published score is a count out of all rows, so that fewer rows
            have no score.
        f1: True if the score is the F1 of "yes", and not the share of right answers.
        min_pixels: size up to which smaller images are enlarged, pixels; None: as they are.
        variant_of: the paper's name of the benchmark; empty: `name`.
        difference: from the paper's edition, in words; empty where there is none.
    """

    name: str
    task: str
    folder: str
    category: str
    metric: str
    columns: tuple[str, ...]
    hub_id: str | None = None
    field: str | None = None
    split: str = "test"
    configuration: str | None = None
    judge: Literal["never", "fallback", "always"] = "never"
    answer: AnswerKind = "option"
    all_rows: bool = False
    f1: bool = False
    min_pixels: int | None = None
    variant_of: str = ""
    difference: str = ""

    @property
    def published(self) -> str:
        """The paper's name of the benchmark."""
        return self.variant_of or self.name


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
        "DreamMr/HR-Bench",
        field="gpt_score",
        split=f"hrbench_{size.lower()}",
        configuration="hrbench_version_split",
        judge="fallback",
    )


AI2D = Benchmark(
    "AI2D", "ai2d", "ai2d", TEXT_CHART, EXACT, (*QUESTION, "options"), "lmms-lab-encoder/ai2d"
)
CHARTQA = Benchmark(
    "ChartQA",
    "chartqa",
    "chartqa",
    TEXT_CHART,
    "relaxed_overall",
    (*QUESTION, "type"),
    "lmms-lab-encoder/ChartQA",
    answer="phrase",
)
OCRBENCH = Benchmark(
    "OCRBench",
    "ocrbench",
    "ocrbench",
    TEXT_CHART,
    "ocrbench_accuracy",
    (*QUESTION, "dataset", "question_type"),
    "echo840/OCRBench",
    field="score",
    answer="text",
    all_rows=True,
    difference="images of OCRBench: of any size here, of at least 102,400 pixels there",
)
TEXTVQA = Benchmark(
    "TextVQA",
    "textvqa_val",
    "textvqa",
    TEXT_CHART,
    EXACT,
    ("image", "question", "answers", "question_id"),
    "lmms-lab-encoder/textvqa",
    split="validation",
    answer="phrase",
)
MMBENCH_DEV = Benchmark(
    "MMBench",
    "mmbench_en_dev_static",
    "mmbench",
    GVQA,
    "gpt_eval_score",
    MMBENCH,
    "lmms-lab-encoder/MMBench",
    split="dev",
    configuration="en",
    difference="subset of MMBench: dev here, dev V1.1 there",
)
POPE = Benchmark(
    "POPE",
    "pope",
    "pope",
    GVQA,
    "pope_accuracy",
    (*QUESTION, "question_id"),
    "lmms-lab-encoder/POPE",
    field="score",
    answer="yes-no",
    difference="metric of POPE: accuracy here, F1 there",
)
REALWORLDQA = Benchmark(
    "RealWorldQA",
    "realworldqa",
    "realworldqa",
    GVQA,
    EXACT,
    QUESTION,
    "lmms-lab-encoder/RealWorldQA",
)
VSTAR = Benchmark(
    "VStar",
    "vstar_bench",
    "vstar_bench",
    PERCEPTION,
    "vstar_overall_acc",
    ("image", "text", "label", "category", "question_id"),
    "lmms-lab-encoder/vstar-bench",
    field="score",
)
MIABENCH = Benchmark(
    "MIABench",
    "mia_bench",
    "mia_bench",
    INST_SCI,
    "gpt_eval_score",
    ("image", "instruction", "components", "component_weight"),
    "lmms-lab-encoder/MIA-Bench",
    field="total_score",
    judge="always",
    answer="text",
)
SCIENCEQA = Benchmark(
    "ScienceQA",
    "scienceqa",
    "scienceqa",
    INST_SCI,
    EXACT,
    ("image", "question", "choices", "answer", "hint"),
    "lmms-lab-encoder/ScienceQA",
    configuration="ScienceQA-FULL",
    difference="subset of ScienceQA: all questions here, those with an image there",
)


def _as_published(benchmark: Benchmark, name: str, **changes: Any) -> Benchmark:
    """Return the variant of a benchmark that is as the paper has it."""
    return replace(benchmark, name=name, variant_of=benchmark.name, difference="", **changes)


_EDITIONS = (
    *(AI2D, CHARTQA, OCRBENCH, TEXTVQA, MMBENCH_DEV, POPE, REALWORLDQA),
    *(_hrbench("4K"), _hrbench("8K"), VSTAR, MIABENCH, SCIENCEQA),
)
_VARIANTS = (
    _as_published(OCRBENCH, "OCRBench-Enlarged", min_pixels=102_400),
    _as_published(MMBENCH_DEV, "MMBench-V1.1", hub_id=None),
    _as_published(POPE, "POPE-F1", f1=True),
    _as_published(SCIENCEQA, "ScienceQA-IMG", task="scienceqa_img", configuration="ScienceQA-IMG"),
)
PUBLISHED = tuple(benchmark.name for benchmark in _EDITIONS)  # the paper's twelve
BENCHMARKS = {benchmark.name: benchmark for benchmark in (*_EDITIONS, *_VARIANTS)}
NO_JUDGE = "another model judges its answers, and no judge is configured; set evaluate.judge"
NOT_MATCHED = "an answer that names no option is wrong; a judge would match it (evaluate.judge)"


def published_name(name: str) -> str:
    """Return the paper's name of a benchmark; a name of other rows as it is."""
    return BENCHMARKS[name].published if name in BENCHMARKS else name


def find_benchmark(name: str) -> Benchmark:
    """Look up a benchmark by name; case and punctuation do not count.

    Raises:
        InputError: there is none; the message names a near one.
    """
    by_key = {key(benchmark.name): benchmark for benchmark in BENCHMARKS.values()}
    if benchmark := by_key.get(key(name)):
        return benchmark
    near = nearest_name(key(name), by_key)
    raise InputError(
        f"evaluate.benchmarks = {name!r}: no such benchmark;"
        f" {did_you_mean(near and by_key[near].name)}Known: {', '.join(BENCHMARKS)}"
    )
