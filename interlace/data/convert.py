"""Convert training sets of benchmarks to FineVision's schema, row by row.

A set is recognised by the names and types of its columns on the hub: ChartQA
(HuggingFaceM4/ChartQA), TextVQA (lmms-lab/textvqa), VQAv2 (lmms-lab/VQAv2) and ScienceQA
(lmms-lab/ScienceQA, derek-thomas/ScienceQA). Other sets with such columns are converted alike, and
their rows are named after their subset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

import pyarrow as pa

from interlace.errors import InputError
from interlace.samples.columns import NUMBER, check_column
from interlace.samples.rows import IMAGE

Row = dict[str, Any]
Types = Sequence[pa.DataType]

_TEXT = (pa.string(),)
_IMAGE = (IMAGE, pa.binary())
_LABEL = (pa.string(), pa.list_(pa.string()))
_ANSWERS = (*_LABEL, pa.list_(pa.struct([("answer", pa.string())])))  # the last is VQAv2's
_CHOICE = (NUMBER, pa.string())


@dataclass(frozen=True)
class Converter:
    """The columns of a benchmark, and their conversion to a row of FineVision.

    Attributes:
        columns: that are read, with the types that they may have.
        sources: names of benchmarks, by a column that only this one of them has.
        question: of a row.
        answer: of a row.
        source: name of the benchmark; `None`: rows are named after their subset.
    """

    columns: Mapping[str, Types]
    sources: Mapping[str, str]
    question: Callable[[Row], str]
    answer: Callable[[Row], str]
    source: str | None = None

    def __call__(self, row: Row) -> Row:
        """Convert a row; missing values stay empty, and cleaning skips the row."""
        image = row["image"]
        if isinstance(image, bytes):
            image = {"bytes": image, "path": None}
        return {
            "images": [] if image is None else [image],
            "texts": [{"user": self.question(row), "assistant": self.answer(row)}],
            "source": self.source,
        }


def _prompt(question: str | None, *lines: str) -> str:
    """Join a question and the lines below it; empty without a question."""
    return "\n".join((question, *lines)) if question else ""


def _answers(value: str | list[Any] | None) -> list[str]:
    """List the answers in a column: a text is the one answer, and a struct holds one."""
    values = [value] if isinstance(value, str) else value or []
    answers = [item["answer"] if isinstance(item, dict) else item for item in values]
    return [answer for answer in answers if answer]


def _chart_question(row: Row) -> str:
    return _prompt(row["query"], "Give the answer alone.")


def _chart_answer(row: Row) -> str:
    return next(iter(_answers(row["label"])), "")


def _text_question(row: Row) -> str:
    return _prompt(row["question"], "Give the answer alone, in a few words.")


def _text_answer(row: Row) -> str:
    """Return the most common of the ten annotators' answers; on a tie, the first."""
    answers = Counter(_answers(row["answers"]))
    return answers.most_common(1)[0][0] if answers else ""


def _science_question(row: Row) -> str:
    choices = zip(ascii_uppercase, row["choices"] or (), strict=False)
    lines = [f"{letter}. {choice}" for letter, choice in choices]
    prompt = _prompt(row["question"], *lines, "Answer with the letter of the right choice.")
    return f"{row['hint']}\n{prompt}" if row["hint"] and prompt else prompt


def _science_answer(row: Row) -> str:
    """Return the letter of the choice that `answer` counts, names or repeats; empty if unclear."""
    answer = row["answer"]
    choices = dict(zip(ascii_uppercase, row["choices"] or (), strict=False))
    if isinstance(answer, str):
        meant = {letter for letter, text in choices.items() if answer.strip() in (letter, text)}
    else:
        meant = {letter for number, letter in enumerate(choices) if number == answer}
    return meant.pop() if len(meant) == 1 else ""


CONVERTERS = (
    Converter(
        {"image": _IMAGE, "query": _TEXT, "label": _LABEL},
        {"human_or_machine": "chartqa"},
        _chart_question,
        _chart_answer,
    ),
    Converter(
        {"image": _IMAGE, "question": _TEXT, "answers": _ANSWERS},
        {"ocr_tokens": "textvqa", "multiple_choice_answer": "vqav2"},
        _text_question,
        _text_answer,
    ),
    Converter(
        {
            "image": _IMAGE,
            "question": _TEXT,
            "choices": (pa.list_(pa.string()),),
            "answer": _CHOICE,
            "hint": _TEXT,
        },
        {"lecture": "scienceqa"},
        _science_question,
        _science_answer,
    ),
)


def converter(schema: pa.Schema, where: str) -> Converter | None:
    """Return the converter for a file's columns; `None` for FineVision's or unknown ones.

    Args:
        schema: of the file.
        where: the file.

    Raises:
        InputError: columns have a benchmark's names, and one has another type.
    """
    names = set(schema.names)
    if "texts" in names:
        return None
    faults = []
    for match in CONVERTERS:
        if names.issuperset(match.columns):
            try:
                for name, types in match.columns.items():
                    check_column(schema, name, types, where)
            except InputError as fault:
                faults.append(fault)
                continue
            sources = [source for column, source in match.sources.items() if column in names]
            return replace(match, source=sources[0] if len(sources) == 1 else None)
    if faults:
        raise faults[0]
    return None
