"""Heal and score one model, in a process of one core; finished work is kept by what it depends on.

A run's tuned checkpoint stays until it was judged, so that models of a search for a learning rate
can be judged later, and only the best ones are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.data.answerers import open_answerer
from interlace.data.answers import answer_rows
from interlace.healing.heal import heal_checkpoint
from interlace.model.row_losses import row_losses
from interlace.params.answers import RowBounds
from interlace.params.exporting import Export
from interlace.params.measuring import Sensitivity
from interlace.plan.record import Plan
from interlace.pruning.dense import Dense
from interlace.pruning.export import export_checkpoint
from interlace.pruning.new_weights import new_weights
from studies import real_bench
from studies.real_bench import BATCH_TOKENS, timed
from studies.real_healing_inputs import TEXTS, Inputs, Purpose, Text
from studies.real_healing_runs import PRUNED, WAYS, Run, recipe, run_name, texts_of
from studies.real_losses import HeldoutLosses, read_losses
from studies.real_rows import Variant
from studies.real_rules import RULES

DENSE = "dense"
WINDOW = 16  # prompts that are answered together, and kept


def answer(inputs: Inputs, purpose: Purpose, text: Text) -> None:
    """Write the dense model's answers to the prompts of a set, unless they are there."""
    torch.set_num_threads(1)
    out, params = inputs.answered(purpose, text), inputs.answers(text)
    if out.is_dir():
        return
    bounds = RowBounds(min_pixels=None, max_pixels=None, max_length=8192)
    answerer = open_answerer(Checkpoint(inputs.plans.model), params, bounds)
    answerer.rows = WINDOW
    scratch = out.with_suffix(".unfinished")
    answer_rows(answerer, inputs.prompts(purpose), out, params=params.answers, scratch=scratch)


def measure(inputs: Inputs, criterion: str, protected: tuple[int, ...] = ()) -> None:
    """Measure what layers are chosen by, unless the study of methods did."""
    if not real_bench.measured(inputs.plans, criterion).is_dir():
        real_bench.begin(inputs.plans)
        real_bench.measure_once(criterion, protected)


class Files:
    """The places of a run's work.

    Attributes:
        plan: of the model.
        pruned: its pruned checkpoint, which similar runs share.
        tuned: its tuned checkpoint.
    """

    def __init__(self, inputs: Inputs, run: Run, plan: Plan) -> None:
        self.inputs, self.plan = inputs, plan
        rows = inputs.sizes.train
        self.params = None if run.way == PRUNED else recipe(run, rows, inputs.sizes.row)
        self.name = run_name(run, plan, self.params)
        layers = "_".join("-".join(map(str, layers)) for layers in (plan.drop, plan.tune))
        weights = "compensated" if run.compensated else "plain"
        self.pruned = inputs.scratch / "pruned" / f"{layers}_{weights}"
        self.tuned = inputs.scratch / "tuned" / self.name

    def losses_file(self, purpose: Purpose, text: Text) -> Path:
        """Return the file of the model's losses on some rows."""
        return losses_file(self.inputs, self.name, purpose, text)

    def losses(self, purpose: Purpose, text: Text) -> HeldoutLosses | None:
        """Read the model's losses on some rows; `None` before it was scored on them."""
        return read_losses(self.losses_file(purpose, text))


def losses_file(inputs: Inputs, name: str, purpose: Purpose, text: Text) -> Path:
    """Return the file of a model's losses on some rows."""
    return inputs.scratch / "losses" / name / f"{purpose}-{text}.parquet"


def prune(inputs: Inputs, run: Run, plan: Plan) -> None:
    """Write the pruned checkpoint that a run starts from, unless it exists."""
    folder, replaced = Files(inputs, run, plan).pruned, {}
    if folder.is_dir():
        return
    dense = Checkpoint(inputs.plans.model)
    if run.compensated:
        variant = Variant(tuple(plan.drop), RULES[0])
        fits = inputs.plans.scratch / "compensated" / inputs.plans.name(variant)
        samples = inputs.plans.fitted_rows
        calibrated = Dense(
            dense, inputs.plans.calibration, Sensitivity(batch_tokens=BATCH_TOKENS, dtype="float32")
        )
        params = Export(compensate="lstsq", compensate_samples=samples)
        replaced, _ = new_weights(calibrated, plan, params, fits)
    folder.parent.mkdir(parents=True, exist_ok=True)
    export_checkpoint(inputs.plans.model, plan, folder, replaced=replaced)


def train(inputs: Inputs, run: Run, plan: Plan) -> Run:
    """Heal a model, unless it was, and score it on the rows to choose by; return the run."""
    torch.set_num_threads(1)
    files = Files(inputs, run, plan)
    if files.losses("validation", "own") is not None and files.tuned.is_dir():
        return run
    assert files.params is not None
    work = inputs.scratch / f"work-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    curves = files.tuned.with_suffix(".local.csv"), files.tuned.with_suffix(".csv")
    with timed(files.tuned):
        heal_checkpoint(
            Checkpoint(inputs.plans.model),
            Checkpoint(files.pruned),
            inputs.rows("train", WAYS[run.way].answers),
            files.tuned,
            curves,
            plan=plan,
            params=files.params,
            seed=run.seed,
            scratch=work,
        )
    shutil.rmtree(work)
    _score(files.tuned, inputs, files.name, "validation", ("own",))
    return run


def judge(inputs: Inputs, run: Run, plan: Plan) -> Run:
    """Score a model on held-out rows, healed before if its way says so; return the run."""
    torch.set_num_threads(1)
    files = Files(inputs, run, plan)
    if done(inputs, run, plan, judge):
        return run
    folder = files.pruned
    if run.way != PRUNED:
        train(inputs, run, plan)
        folder = files.tuned
    _score(folder, inputs, files.name, "heldout", texts_of(run))
    remove_tuned(inputs, run, plan)
    return run


def remove_tuned(inputs: Inputs, run: Run, plan: Plan) -> None:
    """Remove a run's tuned checkpoint."""
    shutil.rmtree(Files(inputs, run, plan).tuned, ignore_errors=True)


def done(inputs: Inputs, run: Run, plan: Plan, task: object) -> bool:
    """Return True if a run was healed and scored as a task does."""
    files = Files(inputs, run, plan)
    if task is train:
        return files.losses("validation", "own") is not None
    return all(files.losses("heldout", text) is not None for text in texts_of(run))


def judge_dense(inputs: Inputs) -> None:
    """Score the dense model on all rows."""
    torch.set_num_threads(1)
    _score(inputs.plans.model, inputs, DENSE, "heldout", TEXTS)
    _score(inputs.plans.model, inputs, DENSE, "validation", ("own",))


def _score(
    folder: Path, inputs: Inputs, name: str, purpose: Purpose, texts: Sequence[Text]
) -> None:
    """Score a checkpoint on rows, and keep its losses."""
    missing = [
        text for text in texts if read_losses(losses_file(inputs, name, purpose, text)) is None
    ]
    if not missing:
        return
    checkpoint = Checkpoint(folder)
    model: Any = checkpoint.open_model(dtype="float32")
    for text in missing:
        examples = inputs.examples(checkpoint.open_processor(), purpose, text)
        rows = row_losses(model, examples, batch_tokens=BATCH_TOKENS)
        HeldoutLosses.of_rows(rows).write(losses_file(inputs, name, purpose, text))
