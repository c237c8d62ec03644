"""Rows of the study of healing on real weights: to train on, to choose by, and to judge by.

Prompts to train on and to choose by keep only their last words, so that most tokens are answers.
Rows to choose by are of packages that no row to train on comes from, as those to judge by are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.model.chat import Inputs as Example
from interlace.model.chat import encode_prompt, encode_training
from interlace.params.answers import AnswersParams, OwnAnswers
from interlace.samples.order import shuffle_key
from interlace.samples.own_answers import ROWS
from interlace.samples.rows import iterate, write_rows
from studies import real_bench
from studies.real_inputs import SEED, Row, file_digest, in_order

Purpose = Literal["train", "validation", "heldout"]
# Whose answers: the dense model's greedy ones, draws from its distribution, or the data's.
Text = Literal["own", "sampled", "labels"]
PURPOSES: tuple[Purpose, ...] = ("train", "validation", "heldout")
TEXTS: tuple[Text, ...] = ("own", "sampled", "labels")
TEMPERATURES: dict[Text, float] = {"own": 0.0, "sampled": 1.0}  # of the dense model's answers
ANSWERED: tuple[tuple[Purpose, Text], ...] = (
    ("train", "own"),
    ("heldout", "own"),
    ("train", "sampled"),
    ("heldout", "sampled"),
    ("validation", "own"),
)
VALIDATION_SHARE = 0.15  # of the packages
BATCH_TOKENS = 8192  # of prompts that are answered together
WORDS = 2  # by which prompts are shortened


@dataclass(frozen=True)
class Sizes:
    """Sizes of the study's sets.

    Attributes:
        prompt: tokens of a prompt to train on or to choose by; at least, by some words.
        answer: tokens of an answer, at most; also of held-out rows.
        train: rows to train on.
        validation: rows to choose by.
        heldout: rows to judge by.
    """

    prompt: int
    answer: int
    train: int
    validation: int
    heldout: int

    @property
    def row(self) -> int:
        """Tokens of a row to train on, at most."""
        return self.prompt + self.answer


@dataclass(frozen=True)
class Inputs:
    """The rows that a study reads, and its folder for finished work.

    Attributes:
        plans: what layers are chosen by, as in the study of methods; names the dense model.
        sizes: of the sets.
        scratch: depends on the model, the prompts and the sizes alone.
    """

    plans: real_bench.Inputs
    sizes: Sizes
    scratch: Path

    def answers(self, text: Text) -> AnswersParams:
        """Return how the dense model answers."""
        options = OwnAnswers(
            source="dense",
            max_new_tokens=self.sizes.answer,
            temperature=TEMPERATURES[text],
            batch_tokens=BATCH_TOKENS,
            max_empty=0.2,
        )
        return AnswersParams(seed=SEED, dtype="float32", answers=options)

    def answered(self, purpose: Purpose, text: Text) -> Path:
        """Return the folder that the dense model's answers to some prompts are written to."""
        return self.scratch / "answers" / f"{purpose}-{text}"

    def rows(self, purpose: Purpose, text: Text) -> Path:
        """Return a folder of rows; those of labels have the same prompts as own answers."""
        if text == "labels":
            return self.scratch / "labels" / purpose
        return self.answered(purpose, text) / ROWS

    def prompts(self, purpose: Purpose) -> Path:
        """Return the folder of rows that the dense model answers."""
        return self.scratch / "prompts" / purpose

    def examples(self, processor: Any, purpose: Purpose, text: Text) -> list[Example]:
        """Encode rows to score; their answers are cut at the same length."""
        answer = self.sizes.answer
        return [cut(processor, row, answer) for row in iterate(self.rows(purpose, text))]


def cut(processor: Any, row: Row, answer: int) -> Example:
    """Encode a row, and cut its answer after some tokens."""
    return encode_training(processor, row, max_length=prompt_length(processor, row) + answer)


def prompt_length(processor: Any, row: Row) -> int:
    """Return the tokens of a row's first user turn."""
    return int(encode_prompt(processor, row)["input_ids"].shape[0])


def prepare(
    plans: real_bench.Inputs, train: Path, test: Path, scratch: Path, sizes: Sizes
) -> Inputs:
    """Draw the prompts of all sets in a seeded order.

    Args:
        plans: see `Inputs`.
        train: Parquet file of rows to train on and to choose by, with the package of each.
        test: Parquet file of rows to judge by.
        scratch: folder of the study.
        sizes: of the sets.
    """
    processor = Checkpoint(plans.model).open_processor()
    drawn: dict[Purpose, list[Row]] = {"heldout": []}
    drawn["heldout"] += islice(in_order(test, "healing"), sizes.heldout)
    for purpose in PURPOSES[:2]:
        rows = (
            row for row in in_order(train, "healing") if is_validation(row) == (purpose != "train")
        )
        short = shortened(processor, rows, sizes.prompt)
        drawn[purpose] = list(islice(short, getattr(sizes, purpose)))
    ids = [row["sample_id"] for purpose in PURPOSES for row in drawn[purpose]]
    weights = [file_digest(path) for path in sorted(plans.model.glob("*.safetensors"))]
    key = " ".join(map(str, [*weights, *ids, *astuple(sizes), *TEMPERATURES.values()]))
    folder = scratch / hashlib.sha256(key.encode()).hexdigest()[:16]
    inputs = Inputs(plans, sizes, folder)
    for purpose, rows_of_purpose in drawn.items():
        if not inputs.prompts(purpose).is_dir():
            write_rows(rows_of_purpose, inputs.prompts(purpose))
    return inputs


def is_validation(row: Row) -> bool:
    """Return True for rows of packages that are not trained on."""
    return shuffle_key(SEED, "validation", row["package"])[0] < VALIDATION_SHARE * 256


def shortened(processor: Any, rows: Iterable[Row], least: int) -> Iterator[Row]:
    """Cut the beginning of prompts, whose first paragraph is the instruction.

    Args:
        processor: the model's.
        rows: with one turn each; those with shorter prompts are skipped.
        least: tokens of a prompt.
    """
    for row in rows:
        (turn,) = row["texts"]
        instruction, _, text = turn["user"].partition("\n\n")
        words = text.split(" ")
        for count in range(WORDS, len(words) + 1, WORDS):
            user = f"{instruction}\n\n{' '.join(words[-count:])}"
            short = row | {"texts": [turn | {"user": user}]}
            if prompt_length(processor, short) >= least:
                yield short
                break


def write_labels(inputs: Inputs, purpose: Purpose) -> None:
    """Write the rows whose prompts the dense model answered, with the data's answers, once."""
    if inputs.rows(purpose, "labels").is_dir():
        return
    ids = {row["sample_id"] for row in iterate(inputs.rows(purpose, "own"))}
    rows = [row for row in iterate(inputs.prompts(purpose)) if row["sample_id"] in ids]
    write_rows(rows, inputs.rows(purpose, "labels"))
