"""Training sets of benchmarks, row by row in FineVision's schema.

A set is known by its columns, as the hub has them: ChartQA (HuggingFaceM4/ChartQA), TextVQA
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
    """How to read one benchmark: its columns, and a row of them as a row of FineVision."""

    source: str
    columns: tuple[str, ...]
    question: Callable[[Row], str]
    answer: Callable[[Row], str]

    def __call__(self, row: Row) -> Row:
        """One row in FineVision's schema; what is missing stays empty, and is left out later."""
        return {
            "images": [row["image"]] if row["image"] else [],
            "texts": [{"user": self.question(row), "assistant": self.answer(row)}],
            "source": self.source,
        }


def _asked(question: str | None, *lines: str) -> str:
    """A question with what belongs below it; nothing where there is no question."""
    return "\n".join((question, *lines)) if question else ""


def _chart_question(row: Row) -> str:
    return _asked(row["query"], "Give the answer alone.")


def _chart_answer(row: Row) -> str:
    return next(iter(row["label"] or ()), "") or ""


def _text_question(row: Row) -> str:
    return _asked(row["question"], "Give the answer alone, in a few words.")


def _text_answer(row: Row) -> str:
    """What most of the ten annotators said; of several, what was said first."""
    said = Counter(answer for answer in row["answers"] or () if answer)
    return said.most_common(1)[0][0] if said else ""


def _science_question(row: Row) -> str:
    choices = zip(ascii_uppercase, row["choices"] or (), strict=False)
    lines = [f"{letter}. {choice}" for letter, choice in choices]
    asked = _asked(row["question"], *lines, "Answer with the letter of the right choice.")
    return f"{row['hint']}\n{asked}" if row["hint"] and asked else asked


def _science_answer(row: Row) -> str:
    place, choices = row["answer"], row["choices"] or ()
    return ascii_uppercase[place] if place is not None and 0 <= place < len(choices) else ""


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
    """The converter for a file's columns; none for FineVision's schema and for unknown ones."""
    names = set(schema.names)
    if "texts" in names:
        return None
    return next((one for one in CONVERTERS if names.issuperset(one.columns)), None)
