"""Training that went wrong stops, and names the samples it went wrong with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from interlace import processes
from interlace.errors import ContractError
from interlace.outputs import write_json
from interlace.training_rows import Schedule, TrainingRows

RECORD = "not-finite.json"


class NotFiniteError(Exception):
    """Passes whose loss is not a number.

    Attributes:
        places: the passes, as (process, pass) of an update.
        what: is not finite.
        rate: the learning rate's parameter.
    """

    def __init__(
        self,
        places: Sequence[tuple[int, int]],
        what: str = "the loss",
        rate: str = "finetune.learning_rate",
    ) -> None:
        super().__init__(places, what, rate)
        self.places, self.what, self.rate = places, what, rate


def stopped(
    error: NotFiniteError, rows: TrainingRows, shares: Schedule, step: int, scratch: Path
) -> ContractError:
    """Keep the samples of the passes that went wrong.

    Args:
        error: says which passes.
        rows: of the training set.
        shares: which rows each pass sees.
        step: updates done before.
        scratch: folder for the file that names all samples.
    """
    indices = [i for process, n in error.places for i in shares.pass_of(step, n, process)]
    ids = rows.sample_ids(indices)
    kept = scratch / RECORD
    if processes.rank() == 0:
        write_json(kept, {"step": step + 1, "sample_ids": ids})
    named = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    return ContractError(
        f"{error.what} is not finite in update {step + 1}, with samples {named} (all in {kept});"
        f" lower {error.rate}, or take these samples out of the data"
    )
