"""What of the kept weights a checkpoint gets anew: compensated for dropped layers, or sparse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interlace.checkpoint.layers import StoredLayers
from interlace.model.open import open_model, open_processor
from interlace.params.exporting import Export
from interlace.params.measuring import Answers, Sensitivity
from interlace.plan.record import Plan
from interlace.pruning.compensation import compensate
from interlace.pruning.sparsity import sparsify
from interlace.samples.answered_rows import AnsweredRows, answered_rows

Replaced = dict[str, Path]  # a tensor's stored name -> the file that holds its new value


@dataclass(frozen=True)
class Dense:
    """A dense checkpoint, and the answers it is measured on.

    Attributes:
        folder: the checkpoint.
        calibration: folder of rows that `sample` wrote.
        answers: how rows are read, and the model's dtype.
        trust_remote_code: let the model's own code run.
    """

    folder: Path
    calibration: Path
    answers: Answers
    trust_remote_code: bool = False

    def opened(self) -> Any:
        """The model, on the GPU where there is one."""
        trust = self.trust_remote_code
        return open_model(self.folder, dtype=self.answers.dtype, trust_remote_code=trust)

    def without_weights(self) -> Any:
        """The model's modules and shapes alone."""
        from transformers import AutoConfig, AutoModelForImageTextToText

        trust = self.trust_remote_code
        config = AutoConfig.from_pretrained(self.folder, trust_remote_code=trust)
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(config, trust_remote_code=trust)

    def stored(self) -> StoredLayers:
        """Its decoder's weights as they are stored."""
        return StoredLayers.of(self.folder, self.trust_remote_code)

    def rows(self, samples: int, folder: Path) -> AnsweredRows:
        """So many calibration rows with answers, encoded into a folder."""
        pixels, trust = self.answers.max_pixels, self.trust_remote_code
        processor = open_processor(self.folder, max_pixels=pixels, trust_remote_code=trust)
        asked = self.answers.model_dump(include=set(Answers.model_fields))
        return answered_rows(
            processor, self.calibration, folder, Sensitivity(samples=samples, **asked)
        )


def new_weights(
    dense: Dense, plan: Plan, params: Export, scratch: Path
) -> tuple[Replaced, dict[str, Any]]:
    """Make the new weights that a plan and the parameters ask for.

    Args:
        dense: the dense model.
        plan: which layers go, or what becomes sparse.
        params: whether to compensate, and how many samples to take.
        scratch: folder for the weights' files, and for resuming; must be another one whenever
            inputs or params change.

    Returns:
        The file of each new weight by stored name, for `checkpoint.export`, and a report:
        `compensation` (`method`, and the `cuts` that `compensation.compensate` reports) and
        `sparsity` (`method`, and how many `tensors` were masked), each none where not asked for.

    Raises:
        InputError: the model's layers cannot be compensated or made sparse, or too few samples.
        ContractError: what was measured is not finite.
    """
    report: dict[str, Any] = {"compensation": None, "sparsity": None}
    if plan.sparsity:
        replaced = sparse(dense, plan.sparsity, params.sparsity_samples, scratch)
        report["sparsity"] = {"method": plan.sparsity, "tensors": len(replaced)}
        return replaced, report
    if params.compensate == "none" or not plan.drop:
        return {}, report
    replaced, cuts = compensated(dense, plan.drop, params.compensate_samples, scratch)
    report["compensation"] = {"method": params.compensate, "cuts": cuts}
    return replaced, report


def compensated(
    dense: Dense, drop: Sequence[int], samples: int, scratch: Path
) -> tuple[Replaced, list[dict[str, Any]]]:
    """Weights that make up for dropped layers, and what came of each run of them."""
    rows = dense.rows(samples, scratch / "rows")
    return compensate(dense.opened(), dense.stored(), drop, rows, scratch)


def sparse(dense: Dense, method: str, samples: int, scratch: Path) -> Replaced:
    """Weights of which half are zero, by one of the methods that do so."""
    if method == "magnitude-2:4":
        return sparsify(dense.without_weights(), dense.stored(), None, scratch)
    rows = dense.rows(samples, scratch / "rows")
    return sparsify(dense.opened(), dense.stored(), rows, scratch)
