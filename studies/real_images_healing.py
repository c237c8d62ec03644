"""Heal pruned models of the study with images, each in a process of one core.

All ways learn from the same prompts, in one pass. Learning rates are those that the study of
healing on real weights chose most often.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.data.answerers import open_answerer
from interlace.data.answers import answer_rows
from interlace.healing.heal import heal_checkpoint
from interlace.model.chat import encode_training
from interlace.model.row_losses import row_losses
from interlace.params.answers import AnswersParams, OwnAnswers, RowBounds
from interlace.params.exporting import Export
from interlace.params.healing import Finetune
from interlace.params.measuring import Sensitivity
from interlace.params.section import merged
from interlace.plan.record import Plan
from interlace.pruning.dense import Dense
from interlace.pruning.export import export_checkpoint
from interlace.pruning.new_weights import new_weights
from interlace.samples.own_answers import ROWS
from interlace.samples.rows import iterate, write_rows
from studies.laptop import LAPTOP
from studies.real_bench import BATCH_TOKENS, Inputs, timed
from studies.real_inputs import SEED, in_order
from studies.real_losses import HeldoutLosses
from studies.real_rows import Variant
from studies.real_rules import RULES

STEPS, BATCH = 60, 4  # updates of so many rows
LONGEST = 1024  # tokens of a row
COMPENSATED = RULES[0]


@dataclass(frozen=True)
class Way:
    """A way to heal.

    Attributes:
        meaning: in words, for the page.
        rate: peak learning rate.
        own: True to train on the dense model's answers, False for the data's.
        compensated: True to start from compensated weights.
        distilled: weight of the divergence from the dense model's distribution.
    """

    meaning: str
    rate: float
    own: bool = False
    compensated: bool = False
    distilled: float = 0.0


WAYS = {
    "recipe": Way("end to end on the data's answers, as published", 1e-3),
    "recipe on own answers": Way("the same on the dense model's answers", 1e-3, own=True),
    "distilled": Way(
        "on the dense model's answers and its distribution at their tokens",
        1e-3,
        own=True,
        distilled=3.0,
    ),
    "compensated, then recipe": Way("the recipe from compensated weights", 3e-4, compensated=True),
    "compensated, then recipe on own answers": Way(
        "the same on the dense model's answers", 3e-4, own=True, compensated=True
    ),
}


def write_training_rows(inputs: Inputs, train: Path) -> None:
    """Draw the rows to train on, unless they are there: none that layers are chosen by."""
    if labels(inputs).is_dir():
        return
    chosen = {row["sample_id"] for row in iterate(inputs.calibration)}
    rows = (row for row in in_order(train, "healing") if row["sample_id"] not in chosen)
    write_rows(list(islice(rows, STEPS * BATCH)), labels(inputs))


def labels(inputs: Inputs) -> Path:
    """Return the folder of rows to train on, with the data's answers."""
    return inputs.scratch / "labels"


def answers(inputs: Inputs) -> Path:
    """Return the folder of the dense model's answers to the same prompts."""
    return inputs.scratch / "answers"


def answer(inputs: Inputs) -> None:
    """Write the dense model's answers to the prompts to train on, unless they are there."""
    torch.set_num_threads(1)
    if answers(inputs).is_dir():
        return
    options = OwnAnswers(source="dense", max_new_tokens=12, batch_tokens=BATCH_TOKENS)
    bounds = RowBounds(min_pixels=None, max_pixels=None, max_length=LONGEST)
    params = AnswersParams(seed=SEED, dtype="float32", answers=options)
    answerer = open_answerer(Checkpoint(inputs.model), params, bounds)
    scratch = inputs.scratch / "answers.unfinished"
    answer_rows(answerer, labels(inputs), answers(inputs), params=options, scratch=scratch)


def heal(inputs: Inputs, plan: Plan, way: str, variant: Variant) -> Variant:
    """Heal a model and score it on held-out rows, unless it was; return the model.

    Args:
        inputs: of the study.
        plan: layers to drop and to tune.
        way: of `WAYS`.
        variant: names the model's losses.
    """
    torch.set_num_threads(1)
    if inputs.losses(variant) is not None:
        return variant
    work = inputs.scratch / f"work-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    dense, pruned = Checkpoint(inputs.model), work / "pruned"
    replaced = dict(_compensated(inputs, plan, dense)) if WAYS[way].compensated else {}
    work.mkdir(parents=True)
    export_checkpoint(inputs.model, plan, pruned, replaced=replaced)
    with timed(inputs.losses_file(variant)):
        heal_checkpoint(
            dense,
            Checkpoint(pruned),
            answers(inputs) / ROWS if WAYS[way].own else labels(inputs),
            work / "tuned",
            (work / "local.csv", work / "loss.csv"),
            plan=plan,
            params=recipe(WAYS[way]),
            seed=SEED,
            scratch=work / "resume",
        )
    _score(Checkpoint(work / "tuned"), inputs, variant)
    shutil.rmtree(work)
    return variant


def recipe(way: Way) -> Finetune:
    """Return the options of a way: one pass over the rows."""
    return merged(
        Finetune,
        LAPTOP,
        max_steps=STEPS,
        learning_rate=way.rate,
        distill_logits=way.distilled,
        batch_size=BATCH,
        micro_batch_size=BATCH,
        max_length=LONGEST,
        dtype="float32",
    )


def _compensated(inputs: Inputs, plan: Plan, dense: Checkpoint) -> Iterator[tuple[str, Path]]:
    """Yield the compensated weights, which the study fitted when it scored them without healing."""
    fits = inputs.scratch / "compensated" / inputs.name(Variant(tuple(plan.drop), COMPENSATED))
    options = Sensitivity(batch_tokens=BATCH_TOKENS, dtype="float32")
    calibrated = Dense(dense, inputs.calibration, options)
    params = Export(compensate="lstsq", compensate_samples=inputs.fitted_rows)
    yield from new_weights(calibrated, plan, params, fits)[0].items()


def _score(checkpoint: Checkpoint, inputs: Inputs, variant: Variant) -> None:
    model, processor = checkpoint.open_model(dtype="float32"), checkpoint.open_processor()
    examples = [encode_training(processor, row) for row in iterate(inputs.heldout)]
    rows = row_losses(model, examples, batch_tokens=BATCH_TOKENS)
    HeldoutLosses.of_rows(rows).write(inputs.losses_file(variant))
