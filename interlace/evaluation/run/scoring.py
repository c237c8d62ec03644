"""What one answer scores: 0 to 1, or nothing where a judge gave no judgement.

lmms-eval's own rules decide, through the functions that a task brings (`process_results` and its
neighbours). Where its rules need mending, they are mended here: an answer that names no option is
wrong and never drawn at random, "Yes." is yes, and a judge that failed says nothing. No torch here.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from interlace.evaluation.benchmarks.catalogue import Benchmark
from interlace.evaluation.run.judge import Endpoint

Row = Mapping[str, Any]
Scorer = Callable[[Row, str], float | None]
Results = Callable[[dict[str, Any], list[str]], Mapping[str, Any]]

NO_OPTION = "Z"  # how HRBench writes that an answer names none
TURNS = 10**6  # MMBench adds a multiple of it to a question's index, for each order of its options
LETTERS = "ABCDEFGHIJ"
TOTAL = re.compile(r"total\s+score\s*:\s*\d+\s*/\s*\d+", re.IGNORECASE)
YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


def scorer(benchmark: Benchmark, results: Results, judge: Endpoint | None) -> Scorer:
    """How to score an answer to a row of a benchmark.

    Args:
        benchmark: which.
        results: lmms-eval's way from a row and its answers to metrics.
        judge: whom to ask, where the benchmark needs it.
    """
    plain = _plain(benchmark, results)
    if benchmark.folder == "mmbench":
        return _mmbench(_neighbours(results))
    if benchmark.folder == "hrbench":
        return _hrbench(_neighbours(results), judge)
    if benchmark.folder == "mia_bench":
        return _mia_bench(_neighbours(results), judge)
    if benchmark.folder == "pope":
        return lambda row, answer: plain(row, _yes_or_no(answer))
    return plain


def _neighbours(results: Results) -> Mapping[str, Any]:
    """The functions of the module that a task's rule is from."""
    return results.__globals__  # type: ignore[attr-defined,no-any-return]


def _plain(benchmark: Benchmark, results: Results) -> Scorer:
    def score(row: Row, answer: str) -> float:
        value = results(dict(row), [answer])[benchmark.metric]
        return float(value[benchmark.part] if benchmark.part else value)

    return score


def _yes_or_no(answer: str) -> str:
    """The leading yes or no of an answer ("Yes.", "No, there is none"), or the answer."""
    found = YES_OR_NO.match(answer)
    return found[1] if found else answer


def _mmbench(task: Mapping[str, Any]) -> Scorer:
    """One order of a question's options; a question counts if all of its orders are right."""
    import pandas

    evaluator = task["mmbench_evaluator"]

    def score(row: Row, answer: str) -> float:
        frame = pandas.DataFrame([{**row, "prediction": answer.strip()}])
        right = {row["index"]: row["answer"]}
        return float(evaluator.eval_sub_data(frame, right, static_only=True))

    return score


def names_option(task: Mapping[str, Any], row: Row, answer: str) -> str | None:
    """The option of HRBench that an answer names; none where it names none or several."""
    options = task["hrbench_doc_to_options"](row)
    found = task["hrbench_evaluator"].can_infer(answer.strip(), options)
    return str(found) if found else None


def _hrbench(task: Mapping[str, Any], judge: Endpoint | None) -> Scorer:
    evaluator = task["hrbench_evaluator"]

    def score(row: Row, answer: str) -> float | None:
        named = names_option(task, row, answer)
        if named is None and judge is not None:
            options = task["hrbench_doc_to_options"](row)
            prompt = evaluator.build_prompt(row["question"], options, answer.strip())
            reply = judge.ask(prompt, accepted=lambda said: names_option(task, row, said))
            if reply is None:
                return None
            named = names_option(task, row, reply)
        return float((named or NO_OPTION).lower() == row["answer"].lower())

    return score


def _mia_bench(task: Mapping[str, Any], judge: Endpoint | None) -> Scorer:
    def score(row: Row, answer: str) -> float | None:
        if judge is None:
            return None
        copied = {**row, "component_weight": list(row["component_weight"])}
        prompt = task["generate_prompt"](copied, answer.strip())
        reply = judge.ask(prompt, accepted=TOTAL.search)
        if reply is None:
            return None
        return float(task["process_rawscore"](list(row["components"]), reply)["total_score"])

    return score


def target(benchmark: Benchmark, row: Row) -> str:
    """The true answer, for people to read."""
    if benchmark.name == "TextVQA":
        return str(Counter(row["answers"]).most_common(1)[0][0])
    if benchmark.name == "MIABench":
        return "; ".join(row["components"])
    answer = row["label"] if benchmark.name == "VStar" else row["answer"]
    if benchmark.name in ("AI2D", "ScienceQA"):
        return LETTERS[int(answer)]
    return " | ".join(answer) if isinstance(answer, list) else str(answer)


def question_id(benchmark: Benchmark, row: Row, place: int) -> str:
    """The same for rows that ask one question in several orders of its options.

    Args:
        benchmark: which.
        row: one of its rows.
        place: of the row.
    """
    if benchmark.folder == "mmbench":
        return str(int(row["index"]) % TURNS)
    if benchmark.folder == "hrbench":
        options = sorted(str(row.get(letter)) for letter in LETTERS[:4])
        asked = "\n".join([row["question"], *options])
        return hashlib.sha256(asked.encode()).hexdigest()[:12]
    return str(place)
