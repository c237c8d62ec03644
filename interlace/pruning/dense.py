"""The dense checkpoint that is pruned, with the calibration answers it is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.params.measuring import Answers, Sensitivity
from interlace.samples.answered_rows import AnsweredRows, answered_rows


@dataclass(frozen=True)
class Dense:
    """A dense checkpoint, and the answers it is measured on.

    Attributes:
        checkpoint: the dense model.
        calibration: folder of rows that `sample` wrote.
        answers: how rows are read, and the model's dtype.
    """

    checkpoint: Checkpoint
    calibration: Path
    answers: Answers

    def open_model(self) -> Any:
        """Open the model in the dtype that answers are measured in."""
        return self.checkpoint.open_model(dtype=self.answers.dtype)

    def rows(self, samples: int, folder: Path) -> AnsweredRows:
        """Encode calibration rows with answers into a folder."""
        processor = self.checkpoint.open_processor(max_pixels=self.answers.max_pixels)
        options = self.answers.model_dump(include=set(Answers.model_fields))
        return answered_rows(
            processor, self.calibration, folder, Sensitivity(samples=samples, **options)
        )
