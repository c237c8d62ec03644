"""Heal pruned models of the study with images, each in a process of one core.

All ways learn from the same prompts, in one pass. Each has the learning rate of least loss on
validation rows, which neither choosing nor tuning saw.
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
from studies.real_bench import BATCH_TOKENS, Inputs
from studies.real_inputs import SEED, in_order
from studies.real_losses import HeldoutLosses, read_losses
from studies.real_rows import PLAIN, Variant
from studies.real_rules import RULES

STEPS, BATCH = 60, 4  # updates of so many rows
VALIDATION = 64  # rows that learning rates are chosen on
LONGEST = 1024  # tokens of a row
COMPENSATED = RULES[0]
RATES = (1e-4, 3e-4, 1e-3)
CLOSE = (1e-5, 3e-5, 1e-4, 3e-4)  # compensated weights are near their goal


@dataclass(frozen=True)
class Way:
    """A way to heal.

    Attributes:
        meaning: in words, for the page.
        rates: peak learning rates to choose from.
        own: True to train on the dense model's answers, False for the data's.
        compensated: True to start from compensated weights.
        distilled: weight of the divergence from the dense model's distribution.
    """

    meaning: str
    rates: tuple[float, ...] = RATES
    own: bool = False
    compensated: bool = False
    distilled: float = 0.0


WAYS = {
    "recipe": Way("end to end on the data's answers, as published"),
    "recipe on own answers": Way("the same on the dense model's answers", own=True),
    "distilled": Way(
        "on the dense model's answers and its distribution at their tokens",
        own=True,
        distilled=3.0,
    ),
    "compensated, then recipe": Way("the recipe from compensated weights", CLOSE, compensated=True),
    "compensated, then recipe on own answers": Way(
        "the same on the dense model's answers", CLOSE, own=True, compensated=True
    ),
}
STARTS = {PLAIN: Way("pruned", ()), COMPENSATED: Way("compensated", (), compensated=True)}


def write_training_rows(inputs: Inputs, train: Path) -> None:
    """Draw the rows to train on, and to choose rates by: none that layers are chosen by."""
    if validation(inputs).is_dir():
        return
    chosen = {row["sample_id"] for row in iterate(inputs.calibration)}
    rows = (row for row in in_order(train, "healing") if row["sample_id"] not in chosen)
    for folder, count in ((labels(inputs), STEPS * BATCH), (validation(inputs), VALIDATION)):
        drawn = list(islice(rows, count))
        if not folder.is_dir():
            write_rows(drawn, folder)


def labels(inputs: Inputs) -> Path:
    """Return the folder of rows to train on, with the data's answers."""
    return inputs.scratch / "labels"


def validation(inputs: Inputs) -> Path:
    """Return the folder of rows that learning rates are chosen on."""
    return inputs.scratch / "validation"


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


@dataclass(frozen=True)
class Run:
    """A model to heal.

    Attributes:
        plan: layers to drop and to tune.
        way: of `WAYS`, or of `STARTS`, which are not trained.
        rate: peak learning rate; 0 without training.
    """

    plan: Plan
    way: str
    rate: float = 0.0

    @property
    def variant(self) -> Variant:
        """The healed model."""
        return Variant(tuple(self.plan.drop), healed(self.way, self.rate))


def healed(way: str, rate: float) -> str:
    """Return what stands for weights in a `Variant`."""
    return f"{way} {rate:g}" if rate else way


def validation_loss(inputs: Inputs, run: Run) -> float | None:
    """Return a healed model's loss per token of validation rows; `None` before `heal`."""
    losses = read_losses(_validation_losses(inputs, run))
    return None if losses is None else losses.mean


def heal(inputs: Inputs, run: Run) -> Run:
    """Heal a model and score it on validation rows, unless it was; return the run.

    The healed model stays until `judge` or `forget`.
    """
    torch.set_num_threads(1)
    if validation_loss(inputs, run) is None:
        _score(_tuned(inputs, run), validation(inputs), _validation_losses(inputs, run))
        if run.way in STARTS:
            forget(inputs, run)
    return run


def judge(inputs: Inputs, run: Run) -> Run:
    """Heal a model and score it on held-out rows, unless it was; return the run."""
    torch.set_num_threads(1)
    if inputs.losses(run.variant) is None:
        _score(_tuned(inputs, run), inputs.heldout, inputs.losses_file(run.variant))
    forget(inputs, run)
    return run


def forget(inputs: Inputs, run: Run) -> None:
    """Remove a model; its losses stay."""
    for folder in (_folder(inputs, run), _work(inputs)):
        shutil.rmtree(folder, ignore_errors=True)


def _work(inputs: Inputs) -> Path:
    """Return the folder for what this process is at."""
    return inputs.scratch / f"work-{os.getpid()}"


def _folder(inputs: Inputs, run: Run) -> Path:
    return inputs.scratch / "tuned" / inputs.name(run.variant)


def _validation_losses(inputs: Inputs, run: Run) -> Path:
    return inputs.scratch / "rates" / f"{inputs.name(run.variant)}.parquet"


def _tuned(inputs: Inputs, run: Run) -> Checkpoint:
    """Return the healed model, which is healed if it is not there."""
    folder, way = _folder(inputs, run), {**STARTS, **WAYS}[run.way]
    if folder.is_dir():
        return Checkpoint(folder)
    work = _work(inputs)
    shutil.rmtree(work, ignore_errors=True)
    dense, pruned = Checkpoint(inputs.model), work / "pruned"
    replaced = dict(_compensated(inputs, run.plan, dense)) if way.compensated else {}
    work.mkdir(parents=True)
    export_checkpoint(inputs.model, run.plan, pruned, replaced=replaced)
    if run.way in STARTS:
        return Checkpoint(pruned)
    heal_checkpoint(
        dense,
        Checkpoint(pruned),
        answers(inputs) / ROWS if way.own else labels(inputs),
        folder,
        (work / "local.csv", work / "loss.csv"),
        plan=run.plan,
        params=recipe(way, run.rate),
        seed=SEED,
        scratch=work / "resume",
    )
    shutil.rmtree(work)
    return Checkpoint(folder)


def recipe(way: Way, rate: float) -> Finetune:
    """Return the options of a way at a learning rate: one pass over the rows."""
    return merged(
        Finetune,
        LAPTOP,
        max_steps=STEPS,
        learning_rate=rate,
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


def _score(checkpoint: Checkpoint, rows: Path, losses: Path) -> None:
    """Score a checkpoint on the rows of a folder, and keep its losses."""
    model, processor = checkpoint.open_model(dtype="float32"), checkpoint.open_processor()
    examples = [encode_training(processor, row) for row in iterate(rows)]
    scored = row_losses(model, examples, batch_tokens=BATCH_TOKENS)
    HeldoutLosses.of_rows(scored).write(losses)
