"""Convert training sets of benchmarks to FineVision's schema, row by row.

A set is recognised by its columns on the hub: ChartQA (HuggingFaceM4/ChartQA), TextVQA
(lmms-lab/textvqa), ScienceQA (lmms-lab/ScienceQA, derek-thomas/ScienceQA).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

import pyarrow as pa

Row = dict[str, Any]


@dataclass(frozen=True)
class Converter:
    """One benchmark's columns, and their conversion to a row of FineVision."""

    source: str
    columns: tuple[str, ...]
    question: Callable[[Row], str]
    answer: Callable[[Row], str]

    def __call__(self, row: Row) -> Row:
        """Convert a row; missing values stay empty, and cleaning leaves the row out."""
        return {
            "images": [row["image"]] if row["image"] else [],
            "texts": [{"user": self.question(row), "assistant": self.answer(row)}],
            "source": self.source,
        }


def _prompt(question: str | None, *lines: str) -> str:
    """Join a question and the lines below it; empty without a question."""
    return "\n".join((question, *lines)) if question else ""


def _chart_question(row: Row) -> str:
    return _prompt(row["query"], "Give the answer alone.")


def _chart_answer(row: Row) -> str:
    return next(iter(row["label"] or ()), "") or ""


def _text_question(row: Row) -> str:
    return _prompt(row["question"], "Give the answer alone, in a few words.")


def _text_answer(row: Row) -> str:
    """Return the most common of the ten annotators' answers; on a tie, the first."""
    answers = Counter(answer for answer in row["answers"] or () if answer)
    return answers.most_common(1)[0][0] if answers else ""


def _science_question(row: Row) -> str:
    choices = zip(ascii_uppercase, row["choices"] or (), strict=False)
    lines = [f"{letter}. {choice}" for letter, choice in choices]
    prompt = _prompt(row["question"], *lines, "Answer with the letter of the right choice.")
    return f"{row['hint']}\n{prompt}" if row["hint"] and prompt else prompt


def _science_answer(row: Row) -> str:
    index, choices = row["answer"], row["choices"] or ()
    return ascii_uppercase[index] if index is not None and 0 <= index < len(choices) else ""


CONVERTERS = (
    Converter("chartqa", ("image", "query", "label"), _chart_question, _chart_answer),
    Converter("textvqa", ("image", "question", "answers"), _text_question, _text_answer),
    Converter(
        "scienceqa",
        ("image", "question", "choices", "answer", "hint"),
        _science_question,
        _science_answer,
    ),
)


def converter(schema: pa.Schema) -> Converter | None:
    """Return the converter for a file's columns; `None` for FineVision's or unknown ones."""
    names = set(schema.names)
    if "texts" in names:
        return None
    return next((match for match in CONVERTERS if names.issuperset(match.columns)), None)
