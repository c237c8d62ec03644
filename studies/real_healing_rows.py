"""The rows of the study of healing on real weights: one per model, and the facts beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.model.chat import encode_training
from interlace.samples.own_answers import AnswerSheet, read_answer_sheet
from interlace.samples.rows import iterate
from studies.real_bench import seconds
from studies.real_healing_bench import DENSE, Files, losses_file
from studies.real_healing_inputs import ANSWERED, TEXTS, Inputs, Purpose, Sizes, Text
from studies.real_healing_runs import RECIPE, Run
from studies.real_losses import HeldoutLosses, agreement, read_losses, rise
from studies.real_rows import read_rows


@dataclass(frozen=True)
class Row:
    """A model, and how far it is from the dense one on held-out prompts.

    Attributes:
        way: of healing, or `pruned`.
        compensated: its kept weights were, before healing.
        seed: of the order of rows.
        rate: peak learning rate.
        dropped: layers.
        tuned: layers that the plan tunes.
        validation: loss on own answers to the prompts that the rate is chosen by, nats per token.
        own: rise of the loss over the dense model's on the dense model's own answers, nats per
            token.
        own_error: its paired standard error.
        sampled: the same on answers drawn from the dense model's distribution: the divergence
            from it.
        sampled_error: its paired standard error.
        labels: the same on the data's answers.
        labels_error: its paired standard error.
        agreement: share of the tokens of own answers on which the first choice is the dense
            model's.
        agreement_error: its standard error.
        gain: loss on own answers below that of the recipe on labels with the same plan and seed,
            neither compensated.
        gain_error: its paired standard error.
        seconds: of the processor, of the training.
        data: digest of the dense model and of the rows, so that numbers of others are not taken.
    """

    method: str
    ratio: float
    way: str
    compensated: bool
    seed: int
    rate: float
    dropped: tuple[int, ...]
    tuned: tuple[int, ...]
    validation: float | None = None
    own: float | None = None
    own_error: float | None = None
    sampled: float | None = None
    sampled_error: float | None = None
    labels: float | None = None
    labels_error: float | None = None
    agreement: float | None = None
    agreement_error: float | None = None
    gain: float | None = None
    gain_error: float | None = None
    seconds: float | None = None
    data: str = ""

    @property
    def run(self) -> Run:
        """The model that the row is about."""
        return Run(self.method, self.ratio, self.way, self.compensated, self.seed, self.rate)

    @property
    def layers(self) -> tuple[list[int], list[int]]:
        """The layers that the plan drops, and those that it tunes."""
        return [*self.dropped], [*self.tuned]


Judged = Mapping[Run, Mapping[Text, HeldoutLosses]]


def published(inputs: Inputs, table: Path) -> dict[Run, Row]:
    """Read the rows that a study of the same model and data wrote, on whatever machine."""
    rows: list[Row] = read_rows(table, Row) if table.is_file() else []
    return {row.run: row for row in rows if row.data == inputs.scratch.name}


def rows_of(
    inputs: Inputs, files: Mapping[Run, Files], known: Mapping[Run, Row] | None = None
) -> list[Row]:
    """Return the rows of models, with the numbers that are there.

    Args:
        inputs: of the study.
        files: of each model.
        known: rows that were published; a model's own files come first.
    """
    dense = {text: _dense(inputs, "heldout", text) for text in TEXTS}
    recipes = {  # losses of the recipe on labels, by plan and seed
        (run.cell, run.seed): losses
        for run, its_files in files.items()
        if (run.way, run.compensated) == (RECIPE, False)
        and (losses := its_files.losses("heldout", "own")) is not None
    }
    rows = (_row(run, its_files, dense, recipes) for run, its_files in files.items())
    return [_complete(row, (known or {}).get(row.run)) for row in rows]


def _complete(row: Row, known: Row | None) -> Row:
    """Fill in what a row lacks from the published one of the same model."""
    if known is None or known.layers != row.layers:
        return row
    lacking = {name: getattr(known, name) for name, value in vars(row).items() if value is None}
    return replace(row, **lacking)


def _row(
    run: Run,
    files: Files,
    dense: Mapping[Text, HeldoutLosses],
    recipes: Mapping[tuple[tuple[str, float], int], HeldoutLosses],
) -> Row:
    validation = files.losses("validation", "own")
    losses = {text: files.losses("heldout", text) for text in TEXTS}
    judged = {text: one for text, one in losses.items() if one is not None}
    numbers: dict[str, float] = {}
    for text, one in judged.items():
        numbers[text], numbers[f"{text}_error"] = rise(one, dense[text])
    if own := judged.get("own"):
        share, error = agreement(own, dense["own"])
        numbers |= {"agreement": share, "agreement_error": error}
        if (recipe := recipes.get((run.cell, run.seed))) is not None:
            numbers["gain"], numbers["gain_error"] = rise(recipe, own)
    return Row(
        run.method,
        run.ratio,
        run.way,
        run.compensated,
        run.seed,
        run.rate,
        tuple(files.plan.drop),
        tuple(files.plan.tune),
        validation.mean if validation else None,
        seconds=seconds(files.tuned),
        data=files.inputs.scratch.name,
        **numbers,
    )


def _dense(inputs: Inputs, purpose: Purpose, text: Text) -> HeldoutLosses:
    losses = read_losses(losses_file(inputs, DENSE, purpose, text))
    assert losses is not None
    return losses


@dataclass(frozen=True)
class Facts:
    """What the page says beside the rows.

    Attributes:
        sizes: of the sets.
        sheets: what the dense model answered, by set and text.
        tokens: of a training, by text.
        heldout: rows, and answer tokens by text.
        dense: the dense model's loss on held-out rows by text, nats per answer token.
        n_layers: of the dense decoder.
        machine: in words.
    """

    sizes: Sizes
    sheets: Mapping[tuple[Purpose, Text], AnswerSheet]
    tokens: Mapping[Text, int]
    heldout: Mapping[Text, tuple[int, int]]
    dense: Mapping[Text, float]
    n_layers: int
    machine: str


def facts(inputs: Inputs) -> Facts:
    """Gather the sizes of all sets, the dense model's losses and the machine."""
    losses = {text: _dense(inputs, "heldout", text) for text in TEXTS}
    return Facts(
        sizes=inputs.sizes,
        sheets={pair: read_answer_sheet(inputs.answered(*pair)) for pair in ANSWERED},
        tokens=training_tokens(inputs),
        heldout={text: (len(one.loss), int(one.n_tokens.sum())) for text, one in losses.items()},
        dense={text: one.mean for text, one in losses.items()},
        n_layers=inputs.plans.n_layers,
        machine=f"{os.cpu_count()} CPU cores, torch {torch.__version__}",
    )


def training_tokens(inputs: Inputs) -> dict[Text, int]:
    """Return the tokens of a training, prompts among them, by text."""
    processor = Checkpoint(inputs.plans.model).open_processor()
    longest = inputs.sizes.row
    encoded = {
        text: (
            encode_training(processor, row, max_length=longest)["input_ids"]
            for row in iterate(inputs.rows("train", text))
        )
        for text in TEXTS
    }
    return {text: sum(len(ids) for ids in rows) for text, rows in encoded.items()}
