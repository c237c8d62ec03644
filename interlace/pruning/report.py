"""The report of `export`: what became of the kept weights, and how the checkpoint was checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from interlace.system.documents import read_record


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def as_json(self) -> dict[str, Any]:
        """Return the fields that were given, as JSON values."""
        return self.model_dump(mode="json", exclude_unset=True)


class CutReport(_Record):
    """The compensation of one run of dropped layers.

    Attributes:
        cut: the dropped layers.
        folded_into: the kept layer before them; `None` where they begin the decoder.
        residual_before: squared error of the state after the run, as a share of the dense state's
            square, on the fitted samples.
        residual_after: the same with the map.
        heldout_before: cross-entropy per answer token on the held-out samples, nats.
        heldout_after: the same with the map.
        kept: the map is in the checkpoint.
        reason: the reason why it is not.
    """

    cut: list[int]
    folded_into: int | None
    residual_before: float | None = None
    residual_after: float | None = None
    heldout_before: float | None = None
    heldout_after: float | None = None
    kept: bool
    reason: str | None = None


class CompensationReport(_Record):
    """The compensation of all runs, in depth order."""

    method: str
    cuts: list[CutReport]


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


class ExportReport(_Record):
    """The contents of artifacts/export.json; `None` for what was not done."""

    parity: ParityReport | None = None
    compensation: CompensationReport | None = None
    sparsity: SparsityReport | None = None

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
