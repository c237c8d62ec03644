"""The questions that every runtime answers: held-out rows of the demo about pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from interlace.model.chat import chat_messages
from interlace.system.outputs import whole

PER_SOURCE = 2
COUNT = 20
LONGEST = 12  # tokens of an answer; the workers have the same bound


@dataclass(frozen=True)
class Question:
    """A user's turn.

    Attributes:
        text: the question.
        images: paths of its pictures, which stand before the text.
    """

    text: str
    images: tuple[str, ...]


def draw_questions(rows: Path, folder: Path) -> list[Question]:
    """Take the first rows with pictures of each source, and write their pictures as PNG.

    Args:
        rows: a Parquet file in FineVision's schema; of a dialogue, the first turn is asked.
        folder: for the pictures, and for `questions.json`, which the workers read.
    """
    questions: list[Question] = []
    sources: dict[str, int] = {}
    for row in pq.read_table(rows).to_pylist():
        count = sources.get(row["source"], 0)
        if row["images"] and count < PER_SOURCE and len(questions) < COUNT:
            sources[row["source"]] = count + 1
            questions.append(_question(row, folder, len(questions)))
    with whole(folder / "questions.json") as partial:
        content = json.dumps([asdict(question) for question in questions], indent=1)
        partial.write_text(content, encoding="utf-8")
    return questions


def _question(row: dict[str, Any], folder: Path, number: int) -> Question:
    images, text = [], ""
    for item in chat_messages(row)[0]["content"]:
        if item["type"] == "text":
            text = item["text"]
            continue
        file = folder / f"{number}-{len(images)}.png"
        with whole(file) as partial:
            item["image"].save(partial, format="PNG")
        images.append(str(file.absolute()))
    return Question(text, tuple(images))


def equal_answers(answers: Sequence[str], expected: Sequence[str]) -> int:
    """Count answers that are the same, without the spaces around them."""
    return sum(a.strip() == b.strip() for a, b in zip(answers, expected, strict=True))
