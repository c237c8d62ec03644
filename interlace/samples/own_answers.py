"""The rows to train on: as `sample` drew them, or with the dense model's own answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from interlace.errors import MissingInputError
from interlace.samples.rows import SCHEMA
from interlace.system.documents import read_record
from interlace.system.outputs import json_text, whole

OWN_SCHEMA = SCHEMA.append(pa.field("cut", pa.bool_()))  # True: the last answer has no end
ROWS, SHEET = "rows", "answers.json"  # in the folder that `answers` writes


@dataclass(frozen=True)
class AnswerSheet:
    """The answers to train on in numbers, beside their rows.

    Attributes:
        source: `labels`, the data's own answers, with no rows beside it; or `dense`.
        model: that an endpoint served; `None` where the dense model was opened here.
        max_new_tokens: bound on an answer, tokens.
        temperature: of sampling; 0: greedy.
        prompts: rows of the training set that the dense model was asked.
        rows: with answers of the dense model.
        answers: in these rows, one a turn.
        cut: rows whose last answer ran into the bound.
        shortened: rows that end early: after a cut answer, or before a turn with an empty answer or
            with too long a prompt.
        empty: prompts whose first answer is empty; they have no row.
        skipped: other prompts without a row, by the reason.
    """

    source: Literal["labels", "dense"]
    model: str | None = None
    max_new_tokens: int = 0
    temperature: float = 0.0
    prompts: int = 0
    rows: int = 0
    answers: int = 0
    cut: int = 0
    shortened: int = 0
    empty: int = 0
    skipped: dict[str, int] | None = None

    @property
    def cut_share(self) -> float:
        """The share of the rows with an answer that ran into the bound, 0 to 1."""
        return self.cut / self.rows if self.rows else 0.0

    def __str__(self) -> str:
        """Say the most important numbers in one line for the terminal."""
        out = f"{self.rows} rows of {self.prompts} prompts, {self.answers} answers"
        out += (
            f"; {self.cut} rows ({100 * self.cut_share:.1f}%) ran into {self.max_new_tokens} tokens"
        )
        counts = {"shortened": self.shortened, "with an empty answer": self.empty}
        counts |= {f"skipped: {reason}": n for reason, n in (self.skipped or {}).items()}
        return "; ".join([out, *(f"{n} {words}" for words, n in counts.items() if n)])

    def write(self, folder: Path) -> None:
        """Write the sheet into the folder that `answers` writes."""
        (folder / SHEET).write_text(json_text(asdict(self)), encoding="utf-8")


def write_labels(answers: Path) -> None:
    """Write a folder without rows that says that training takes the data's own answers."""
    with whole(answers) as partial:
        partial.mkdir()
        AnswerSheet("labels").write(partial)


def read_answer_sheet(answers: Path) -> AnswerSheet:
    """Read what the stage `answers` says of the rows that it wrote.

    Raises:
        InputError: it is missing, or the rows that it counts are.
    """
    sheet: AnswerSheet = read_record(answers / SHEET, AnswerSheet)
    if sheet.source == "dense" and not any((answers / ROWS).glob("*.parquet")):
        raise MissingInputError(answers / ROWS, f"no rows, and {SHEET} beside it counts some")
    return sheet


def training_set(train: Path, answers: Path) -> Path:
    """Return the folder of rows to train on.

    Args:
        train: folder of rows that `sample` wrote.
        answers: folder that `answers` wrote.

    Raises:
        InputError: see `read_answer_sheet`.
    """
    return answers / ROWS if read_answer_sheet(answers).source == "dense" else train
