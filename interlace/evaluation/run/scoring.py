"""The score of one answer: 0 to 1, or None without a judgement.

lmms-eval's own rules decide, through the functions of a task's module (`process_results` and
others). Three fixes to lmms-eval: an answer that names no option is wrong, not a random option;
"Yes." is yes; a failed judgement is missing. They score the final answer of a long one. No torch
here.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from interlace.evaluation.benchmarks.catalogue import Benchmark
from interlace.evaluation.benchmarks.prompts import options_of
from interlace.evaluation.run.final_answers import final_option, final_phrase, final_yes_or_no
from interlace.evaluation.run.judge import Grader

Row = Mapping[str, Any]
Scorer = Callable[[Row, str], float | None]
Results = Callable[[dict[str, Any], list[str]], Mapping[str, Any]]

NO_OPTION = "Z"  # HRBench's letter for an answer that names no option
TURNS = 10**6  # MMBench adds a multiple of it to a question's index, for each order of its options
LETTERS = "ABCDEFGHIJ"
TOTAL = re.compile(r"total\s+score\s*:\s*\d+\s*/\s*\d+", re.IGNORECASE)
UNFINISHED = re.compile(r"<(think|analysis)>.*", re.DOTALL)  # reasoning that was cut off
YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


def scorer(
    benchmark: Benchmark, results: Results, judge: Grader | None, *, reasoning: bool = False
) -> Scorer:
    """Return the function that scores an answer to a row of a benchmark.

    Args:
        benchmark: of the rows.
        results: lmms-eval's function from a row and its answers to metrics.
        judge: grades answers where the benchmark needs it; None: nobody.
        reasoning: find the final answer in a long one first; else the answer is expected alone.
    """
    score = _rule(benchmark, results, judge, reasoning=reasoning)
    if not reasoning:
        return score
    return lambda row, answer: score(row, final_answer(benchmark, row, answer))


def _rule(
    benchmark: Benchmark, results: Results, judge: Grader | None, *, reasoning: bool
) -> Scorer:
    plain = _plain(benchmark, results)
    if benchmark.folder == "mmbench":
        return _mmbench(_module_of(results))
    if benchmark.folder == "hrbench":
        return _hrbench(_module_of(results), judge, reasoning=reasoning)
    if benchmark.folder == "mia_bench":
        return _mia_bench(_module_of(results), judge)
    if benchmark.answer == "yes-no":
        return lambda row, answer: plain(row, _yes_or_no(answer))
    return plain


def final_answer(benchmark: Benchmark, row: Row, answer: str) -> str:
    """Reduce a long answer to what lmms-eval's rule expects; empty where it names no option.

    HRBench's judge reads the whole answer where it names none.
    """
    if benchmark.answer == "text":
        return answer
    answer = UNFINISHED.sub("", answer)
    if benchmark.answer == "yes-no":
        return final_yes_or_no(answer) or answer
    options = options_of(benchmark, row)
    if benchmark.answer == "phrase" or (benchmark.published == "RealWorldQA" and not options):
        return final_phrase(answer)
    unread = answer if benchmark.judge == "fallback" else ""
    return final_option(answer, options) or unread


def weigher(benchmark: Benchmark, *, reasoning: bool = False) -> Callable[[Row, str], int]:
    """Return the function that weighs a row in its benchmark's score, given the answer.

    F1 is 2 TP / (2 TP + FP + FN). With the score 1 for a right answer it is the weighted mean of
    scores, where a row weighs 1 for a predicted "yes" and 1 for a true one.
    """

    def weight(row: Row, answer: str) -> int:
        text = final_answer(benchmark, row, answer) if reasoning else answer
        return sum(words.strip().lower() == "yes" for words in (_yes_or_no(text), row["answer"]))

    return weight if benchmark.f1 else lambda row, answer: 1


def _module_of(results: Results) -> Mapping[str, Any]:
    """Return the names of the module that defines a task's rule."""
    return results.__globals__  # type: ignore[attr-defined,no-any-return]


def _plain(benchmark: Benchmark, results: Results) -> Scorer:
    def score(row: Row, answer: str) -> float:
        value = results(dict(row), [answer])[benchmark.metric]
        return float(value[benchmark.field] if benchmark.field else value)

    return score


def _yes_or_no(answer: str) -> str:
    """Return the leading yes or no of an answer ("Yes.", "No, there is none"), else the answer."""
    match = YES_OR_NO.match(answer)
    return match[1] if match else answer


def _mmbench(task: Mapping[str, Any]) -> Scorer:
    """Score one order of a question's options; a question counts if all its orders are right."""
    import pandas

    evaluator = task["mmbench_evaluator"]

    def score(row: Row, answer: str) -> float:
        frame = pandas.DataFrame([{**row, "prediction": answer.strip()}])
        right = {row["index"]: row["answer"]}
        return float(evaluator.eval_sub_data(frame, right, static_only=True))

    return score


def option_of(task: Mapping[str, Any], row: Row, answer: str) -> str | None:
    """Return the option of HRBench that an answer names; None if it names none or several."""
    options = task["hrbench_doc_to_options"](row)
    option = task["hrbench_evaluator"].can_infer(answer.strip(), options)
    return str(option) if option else None


def _hrbench(task: Mapping[str, Any], judge: Grader | None, *, reasoning: bool) -> Scorer:
    evaluator = task["hrbench_evaluator"]

    def score(row: Row, answer: str) -> float | None:
        # an answer with reasoning is a letter by now, or names no option
        letter = answer if len(answer) == 1 else None
        option = letter if reasoning else option_of(task, row, answer)
        if option is None and judge is not None:
            options = task["hrbench_doc_to_options"](row)
            prompt = evaluator.build_prompt(row["question"], options, answer.strip())
            reply = judge.ask(prompt, accepted=lambda text: option_of(task, row, text))
            if reply is None:
                return None
            option = option_of(task, row, reply)
        return float((option or NO_OPTION).lower() == row["answer"].lower())

    return score


def _mia_bench(task: Mapping[str, Any], judge: Grader | None) -> Scorer:
    def score(row: Row, answer: str) -> float | None:
        if judge is None:
            return None
        row_copy = {**row, "component_weight": list(row["component_weight"])}
        prompt = task["generate_prompt"](row_copy, answer.strip())
        reply = judge.ask(prompt, accepted=TOTAL.search)
        if reply is None:
            return None
        return float(task["process_rawscore"](list(row["components"]), reply)["total_score"])

    return score


def target(benchmark: Benchmark, row: Row) -> str:
    """Return the true answer as people read it."""
    if benchmark.published == "TextVQA":
        return str(Counter(row["answers"]).most_common(1)[0][0])
    if benchmark.published == "MIABench":
        return "; ".join(row["components"])
    answer = row["label"] if benchmark.published == "VStar" else row["answer"]
    if benchmark.published in ("AI2D", "ScienceQA"):
        return LETTERS[int(answer)]
    return " | ".join(answer) if isinstance(answer, list) else str(answer)


def question_id(benchmark: Benchmark, row: Row, number: int) -> str:
    """Return an id that rows share if they ask one question in several orders of its options.

    Args:
        benchmark: of the row.
        row: a row of its data.
        number: of the row.
    """
    if benchmark.folder == "mmbench":
        return str(int(row["index"]) % TURNS)
    if benchmark.folder == "hrbench":
        options = sorted(str(row.get(letter)) for letter in LETTERS[:4])
        content = "\n".join([row["question"], *options])
        return hashlib.sha256(content.encode()).hexdigest()[:12]
    return str(number)
