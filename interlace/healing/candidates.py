"""Candidates: plans that are healed for a few steps each, and judged on rows kept apart.

The order of plans before healing is not that after it. So each candidate is exported, compensated
where `export.compensate` asks for it, healed by the recipe of `finetune`, and judged by its loss on
rows that no candidate is healed on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.data.validation import split_training
from interlace.errors import InputError
from interlace.healing.heal import heal_checkpoint
from interlace.model.batches import encode_rows
from interlace.model.chat import IGNORED, Inputs
from interlace.model.row_losses import RowLoss, row_losses
from interlace.params.candidates import CandidatesParams
from interlace.params.choosing import Select
from interlace.params.exporting import Export
from interlace.params.healing import Finetune
from interlace.plan.candidates import Losses
from interlace.plan.record import Plan
from interlace.pruning.dense import Dense
from interlace.pruning.export import export_checkpoint
from interlace.pruning.new_weights import new_weights
from interlace.samples.rows import iterate
from interlace.system import distributed
from interlace.system.documents import read_record
from interlace.system.outputs import remove
from interlace.system.resumable import intact, keep_json, mark


def candidate_options(params: CandidatesParams) -> CandidatesParams:
    """Return the parameters that a candidate's losses depend on, all others at their defaults.

    Experiments that differ in other parameters alone share the losses of equal candidates.
    """
    fields = {"compensate", "compensate_samples", "dtype"}
    select = params.select.model_dump(include={"candidate_steps", "candidate_rows"})
    return CandidatesParams(
        **params.model_dump(include={"seed", "dtype", "measure", "finetune", "heal"}),
        select=Select(**select),
        export=Export(**params.export.model_dump(include=fields)),
    )


def candidate_recipe(params: CandidatesParams) -> Finetune:
    """Return the recipe of `finetune`, each of its parts `select.candidate_steps` updates long."""
    recipe, steps = params.finetune_options, params.select.candidate_steps
    counts = {"max_steps": recipe.max_steps, "local_steps": recipe.local_steps}
    return recipe.model_copy(update={name: steps for name, count in counts.items() if count})


def heal_candidates(
    dense: Dense, plans: Sequence[Plan], train: Path, *, params: CandidatesParams, scratch: Path
) -> list[Losses]:
    """Heal each plan for a few steps, and measure its loss before and after.

    A plan whose losses are known is not healed again, and an interrupted run resumes.

    Args:
        dense: the dense model, and the calibration rows to compensate on.
        plans: the candidates.
        train: folder of training rows.
        params: of healing, compensation and the rows that judge.
        scratch: folder that keeps losses and unfinished work; use another for other code, inputs or
            `candidate_options`.

    Raises:
        InputError: no row judges, a row cannot be used, or layers cannot be compensated.
        ContractError: a loss is not finite.
    """
    distributed.meet()
    trial = CandidateRun(dense, params, scratch)
    if trial.is_first and not (intact(trial.healing) and intact(trial.validation)):
        trial.split(train)
    distributed.barrier()
    progress = tqdm(plans, desc="candidates", unit="plan", disable=not trial.is_first)
    return [trial.losses(plan) for plan in progress]


@dataclass(frozen=True)
class CandidateRun:
    """The healing of candidates on some rows, and their losses on others; see `heal_candidates`."""

    dense: Dense
    params: CandidatesParams
    scratch: Path

    @property
    def is_first(self) -> bool:
        """Return True in the process that writes."""
        return distributed.process_rank() == 0

    @property
    def healing(self) -> Path:
        """The folder of rows to heal on."""
        return self.scratch / "healing"

    @property
    def validation(self) -> Path:
        """The folder of rows that judge."""
        return self.scratch / "validation"

    def split(self, train: Path) -> None:
        """Write both folders."""
        select, recipe = self.params.select, candidate_recipe(self.params)
        split_training(
            train,
            self.dense.calibration,
            self.healing,
            self.validation,
            seed=self.params.seed,
            judging=select.candidate_rows,
            healed=select.candidate_steps * recipe.batch_size,
        )
        mark(self.healing)
        mark(self.validation)

    def losses(self, plan: Plan) -> Losses:
        """Return a plan's losses; heal it unless they are known."""
        name = candidate_name(plan)
        file, work = self.scratch / f"{name}.json", self.scratch / name
        if not distributed.gather(self.is_first and intact(file))[0]:
            pruned = self.dense.checkpoint.at(work / "pruned")
            if self.is_first and not intact(pruned.folder):
                self.export(plan, pruned.folder, work / "weights")
            distributed.barrier()
            heal_checkpoint(
                self.dense.checkpoint,
                pruned,
                self.healing,
                work / "tuned",
                (work / "local_loss.csv", work / "loss.csv"),
                plan=plan,
                params=candidate_recipe(self.params),
                seed=self.params.seed,
                scratch=work / "healing",
            )
            if self.is_first:
                keep_json(file, self.judge(work).model_dump(mode="json"))
                remove(work)
            distributed.barrier()
        losses: Losses = read_record(file, Losses)
        return losses

    def export(self, plan: Plan, out: Path, scratch: Path) -> None:
        """Write a plan's checkpoint before healing."""
        dense, options = self.dense.checkpoint, self.params.export
        replaced, _ = new_weights(self.dense, plan, options, scratch)
        trust = dense.trust_remote_code
        export_checkpoint(
            dense.folder, plan, out, replaced=replaced, dtype=options.dtype, trust_remote_code=trust
        )
        mark(out)

    def judge(self, work: Path) -> Losses:
        """Measure the losses of the pruned and of the tuned checkpoint."""
        pruned, tuned = (
            self.row_losses(self.dense.checkpoint.at(work / name)) for name in ("pruned", "tuned")
        )
        return Losses(
            tokens=tuple(len(row.tokens) for row in pruned),
            before=tuple(row.loss for row in pruned),
            after=tuple(row.loss for row in tuned),
        )

    def row_losses(self, checkpoint: Checkpoint) -> list[RowLoss]:
        """Measure a checkpoint's loss on each row that judges."""
        model = checkpoint.open_model(dtype=self.params.dtype)
        return row_losses(model, self.examples, batch_tokens=self.params.measure.batch_tokens)

    @cached_property
    def examples(self) -> list[Inputs]:
        """The rows that judge, as training encodes them, without those that have no answer."""
        options = self.params.finetune_options
        processor = self.dense.checkpoint.open_processor(
            min_pixels=options.min_pixels, max_pixels=options.max_pixels
        )
        rows = dict(enumerate(iterate(self.validation)))
        encoded, reasons = encode_rows(processor, rows, options.max_length, answers=True)
        examples = [
            example for example in encoded.values() if (example["labels"][1:] != IGNORED).any()
        ]
        if not examples:
            reason = next(iter(reasons.values()), "no answer is left")
            raise InputError(
                f"select.candidates: none of {len(rows)} training rows can judge: {reason}; repair"
                " the data, or raise finetune.max_length"
            )
        return examples


def candidate_name(plan: Plan) -> str:
    """Name a plan by what its healing depends on."""
    groups = [(group.drop, group.tune) for group in plan.groups]  # local healing pairs by them
    return hashlib.sha256(repr((plan.drop, plan.tune, groups)).encode()).hexdigest()[:16]
