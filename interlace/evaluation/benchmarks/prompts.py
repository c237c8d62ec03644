"""Prompts that leave room for reasoning: those of VLMEvalKit, behind INTERLACE's numbers.

VLMEvalKit asks Qwen3-VL by the prompts of its data sets: options to select from, without "answer
directly"; a single word or phrase of ChartQA and TextVQA; the question alone elsewhere. The
questions of RealWorldQA end with a request of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from interlace.evaluation.benchmarks.catalogue import LETTERS, Benchmark

Row = Mapping[str, Any]
SELECT = "Please select the correct answer from the options above. \n"
SHORT = "\nAnswer the question using a single word or phrase."
YES_OR_NO = " Please answer yes or no."
QUESTIONS = {"MIABench": "instruction", "VStar": "text"}  # columns; elsewhere `question`
_INLINE_OPTION = re.compile(r"\s*\(([A-D])\)\s*")  # V* writes its options into the question
_REQUEST = re.compile(r"\s*Answer with the option's letter.*$", re.DOTALL)


def reasoning_prompt(benchmark: Benchmark, row: Row) -> str:
    """Return the text that follows the image of a row.

    Args:
        benchmark: of the row.
        row: of its data set.
    """
    question = str(row[QUESTIONS.get(benchmark.published, "question")])
    if benchmark.answer == "phrase":
        return question + SHORT
    if benchmark.answer == "yes-no":
        return question.strip() + YES_OR_NO
    options = options_of(benchmark, row)
    if not options or benchmark.published == "RealWorldQA":
        return question
    stem = _INLINE_OPTION.split(question)[0] if benchmark.published == "VStar" else question
    hint = row.get("hint")
    lines = [f"Hint: {hint}"] if _is_text(hint) else []
    lines += [f"Question: {stem}", "Options:"]
    lines += [f"{letter}. {text}" for letter, text in options.items()]
    return "\n".join([*lines, SELECT])


def options_of(benchmark: Benchmark, row: Row) -> dict[str, str]:
    """Return the options of a row by their letters; empty where it has none."""
    if benchmark.published == "AI2D":
        return _lettered(row["options"])
    if benchmark.published == "ScienceQA":
        return _lettered(row["choices"])
    if benchmark.published == "VStar":
        return _inline_options(row["text"])
    if benchmark.published == "RealWorldQA":
        return dict(re.findall(r"^([A-D])[.)]\s+(.+?)\s*$", row["question"], re.MULTILINE))
    columns = LETTERS if "A" in benchmark.columns else ()
    return {letter: str(row[letter]) for letter in columns if _is_text(row.get(letter))}


def _lettered(options: Sequence[Any]) -> dict[str, str]:
    return {chr(ord("A") + number): str(option) for number, option in enumerate(options)}


def _inline_options(text: str) -> dict[str, str]:
    _, *pieces = _INLINE_OPTION.split(_REQUEST.sub("", text))
    return {
        letter: option.strip() for letter, option in zip(pieces[::2], pieces[1::2], strict=True)
    }


def _is_text(value: Any) -> bool:
    """Tell text from an empty cell, which some data sets write as nan."""
    return isinstance(value, str) and value not in ("", "nan")
