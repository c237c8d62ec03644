"""The training loop: one update after another, with resume points between them.

All that an update depends on besides the tuned layers' state follows from its step: the rows, the
learning rate, the random numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from interlace.errors import ContractError
from interlace.params.healing import Recipe
from interlace.printable import say
from interlace.system import distributed
from interlace.system.outputs import write_json
from interlace.training.curve import Curve
from interlace.training.engines import all_gather
from interlace.training.resume import Point, Update, newest_point, point_folder, write_point
from interlace.training.rows import Collator, Pass, TrainingBatches, TrainingRows, load_passes
from interlace.training.schedule import CosineSchedule

NOT_FINITE = "not-finite.json"


class Learner(Protocol):
    """The trained part of the loop: makes updates and hands over its state.

    Attributes:
        title: of the training, for the progress bar and messages.
        objective: the value of an update that is minimised.
        rate_parameter: the setting that holds the peak learning rate.
    """

    title: str
    objective: str
    rate_parameter: str

    def update(self, passes: Sequence[Pass], learning_rate: float) -> dict[str, float]:
        """Make one update from this process's passes; return its values, `objective` among them.

        Raises:
            NotFiniteError: the objective or a gradient is not finite.
        """

    def states(self) -> Iterator[Mapping[str, Tensor]]:
        """Yield the tensors to resume from, one file at a time; all processes must iterate."""

    def restore(self, states: Iterable[Mapping[str, Tensor]], step: int) -> None:
        """Take over what `states` yielded after `step` updates; all processes must call it."""


class NotFiniteError(Exception):
    """An update whose objective or gradient is not finite.

    Attributes:
        passes: the passes concerned, as (process, pass of the update).
        quantity: what is not finite.
    """

    def __init__(self, passes: Sequence[tuple[int, int]], quantity: str) -> None:
        super().__init__(passes, quantity)
        self.passes, self.quantity = passes, quantity


def train(
    learner: Learner,
    rows: TrainingRows,
    batches: TrainingBatches,
    collator: Collator,
    *,
    schedule: CosineSchedule,
    params: Recipe,
    scratch: Path,
    curve: Curve,
) -> list[Update]:
    """Make all updates; return all, including those of an interrupted run.

    Args:
        learner: makes the updates.
        rows: the training set.
        batches: the rows of each pass.
        collator: makes a pass of rows.
        schedule: number of updates, and their learning rates.
        params: the recipe.
        scratch: folder for resume points.
        curve: is written as the updates are made.

    Raises:
        InputError: a row cannot be used, or the curve or a resume point cannot be written.
        ContractError: an update is not finite.
    """
    updates = resume(learner, scratch)
    curve.write(updates)
    passes = load_passes(
        rows,
        batches,
        collator,
        steps=range(len(updates), schedule.steps),
        process=distributed.process_rank(),
        workers=params.workers,
    )
    for update_passes in _progress(passes, updates, schedule.steps, learner):
        step = len(updates)
        torch.manual_seed(
            ((batches.seed << 24) + step) * batches.processes + distributed.process_rank()
        )
        rate = schedule.learning_rate(step)
        try:
            values = learner.update(update_passes, rate)
        except NotFiniteError as error:
            raise _record_samples(error, learner, rows, batches, step, scratch) from None
        tokens = _total_tokens(update_passes) + (updates[-1].tokens if updates else 0)
        updates.append(Update(step=step + 1, learning_rate=rate, tokens=tokens, values=values))
        curve.write(updates)
        if len(updates) % params.save_steps == 0 or len(updates) == schedule.steps:
            save(learner, updates, scratch)
    return updates


def save(learner: Learner, updates: Sequence[Update], scratch: Path) -> None:
    """Write a resume point: all processes take part, the first one writes."""
    if distributed.process_rank() == 0:
        write_point(scratch, learner.states(), updates)
        return
    for _ in learner.states():
        pass


def resume(learner: Learner, scratch: Path) -> list[Update]:
    """Restore the newest undamaged resume point; return the updates up to it.

    The first process chooses the point and all read it, so `scratch` must be one folder for all.
    """
    step = torch.zeros((), dtype=torch.int64, device=distributed.device())
    if distributed.process_rank() == 0:
        point, damages = newest_point(scratch)
        for damage in damages:
            say(f"{learner.title}: {damage}")
        step += point.step if point else 0
    step = all_gather(step)[0]
    if not step:
        return []
    point = Point.read(point_folder(scratch, int(step)), verify=False)
    learner.restore(point.tensors(), point.step)
    return list(point.updates)


def _total_tokens(passes: Sequence[Pass]) -> int:
    """Return the tokens of an update over all processes, without padding."""
    tokens = torch.tensor(sum(p.tokens for p in passes), device=distributed.device())
    return int(all_gather(tokens).sum())


def _progress(
    passes: Iterator[list[Pass]], updates: list[Update], steps: int, learner: Learner
) -> Iterator[list[Pass]]:
    """Yield each update's passes; show the objective, speed and remaining time."""
    start, earlier_tokens = time.perf_counter(), updates[-1].tokens if updates else 0
    hidden = distributed.process_rank() > 0
    with tqdm(
        total=steps, initial=len(updates), unit="step", desc=learner.title, disable=hidden
    ) as bar:
        for update_passes in passes:
            yield update_passes
            last = updates[-1]
            speed = (last.tokens - earlier_tokens) / (time.perf_counter() - start)
            name, value = learner.objective.replace("_", " "), last.values[learner.objective]
            bar.set_postfix_str(f"{name} {value:.4f}, {speed:,.0f} tokens/s", refresh=False)
            bar.update()


def _record_samples(
    error: NotFiniteError,
    learner: Learner,
    rows: TrainingRows,
    batches: TrainingBatches,
    step: int,
    scratch: Path,
) -> ContractError:
    """Write the samples of the passes concerned to a file; return the error to raise."""
    indices = [
        row for process, number in error.passes for row in batches.of_pass(step, number, process)
    ]
    ids = rows.sample_ids(indices)
    file = scratch / NOT_FINITE
    if distributed.process_rank() == 0:
        write_json(file, {"step": step + 1, "sample_ids": ids})
    listed = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    return ContractError(
        f"{error.quantity} is not finite in update {step + 1}, with samples {listed} (all in"
        f" {file}); lower {learner.rate_parameter}, or remove these samples from the data"
    )
