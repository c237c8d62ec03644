"""The report of `export`: what became of the kept weights, and how the checkpoint was checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from interlace.system.documents import read_record
from interlace.system.resumable import content_digest


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def as_json(self) -> dict[str, Any]:
        """Return the fields that were given, as JSON values."""
        return self.model_dump(mode="json", exclude_unset=True)


class CutReport(_Record):
    """The fit of one kept layer, and the dropped layers that it makes up for.

    Attributes:
        cut: the dropped layers between it and the next kept one; may be none.
        folded_into: the fitted layer; `None` where dropped ones begin the decoder.
        ridge: strength of the ridge, as a multiple of the mean diagonal.
        residual_before: squared error of the states after it, as a share of the dense states'
            square, mean over the tokens of the held-out samples.
        residual_after: the same with the new weight.
        heldout_before: cross-entropy per answer token on the held-out samples, nats.
        heldout_after: the same with the new weight.
        kept: the new weight is in the checkpoint.
        reason: the reason why it is not.
    """

    cut: list[int]
    folded_into: int | None
    ridge: float | None = None
    residual_before: float | None = None
    residual_after: float | None = None
    heldout_before: float
    heldout_after: float | None = None
    kept: bool
    reason: str | None = None

    @property
    def end(self) -> int:
        """The next kept layer, or the count of layers."""
        return (0 if self.folded_into is None else self.folded_into + 1) + len(self.cut)

    @property
    def heldout_loss(self) -> float:
        """The cross-entropy on the held-out samples that the fit leaves."""
        return (
            self.heldout_before
            if self.heldout_after is None or not self.kept
            else self.heldout_after
        )


class CompensationReport(_Record):
    """The compensation of all runs, in depth order."""

    method: str
    cuts: list[CutReport]


class HealedReport(_Record):
    """The layers that were healed between rounds.

    Attributes:
        rounds: times that they were healed.
        steps: updates each time.
        layers: of the dense decoder.
    """

    rounds: int
    steps: int
    layers: list[int]


class SparsityReport(_Record):
    """A method of sparsity, and the count of weight matrices that it masked."""

    method: str
    tensors: int


class ParityReport(_Record):
    """The comparison of the written checkpoint with the dense model without the dropped layers.

    Attributes:
        samples: compared prompts; where there are none, all else is missing.
        left_out: rows that are too long or cannot be read.
        tokens: of all samples.
        layers: kept layers.
        dtype: of both models.
        greatest_difference: 0, since the checkpoint is refused otherwise.
    """

    samples: int
    left_out: int | None = None
    tokens: int | None = None
    layers: int | None = None
    dtype: str | None = None
    greatest_difference: float | None = None

    def __str__(self) -> str:
        """Say how the checkpoint was checked, in a few words."""
        if not self.samples:
            return "not checked, as no sample fits"
        return f"equal to the dense model without the others on {self.samples} samples"


class ExportReport(_Record):
    """The contents of artifacts/export.json; `None` for what was not done.

    Attributes:
        plan: digest of the plan's file.
    """

    parity: ParityReport | None = None
    healed: HealedReport | None = None
    compensation: CompensationReport | None = None
    sparsity: SparsityReport | None = None
    plan: str | None = None

    def of_plan(self, file: Path) -> ExportReport:
        """Return the report with the digest of the plan's file."""
        return self.model_copy(update={"plan": content_digest(file)})

    @classmethod
    def read(cls, path: Path) -> ExportReport:
        """Read export.json; a missing file says that nothing was done.

        Raises:
            InputError: it is not as `export` writes it.
        """
        if not path.exists():
            return cls()
        report: ExportReport = read_record(path, cls)
        return report
