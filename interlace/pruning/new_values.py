"""The stored values of weights that are fitted anew, and the fits so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from interlace.checkpoint.layers import StoredLayers
from interlace.checkpoint.replace import write_weights
from interlace.checkpoint.safetensors import stored_tensors
from interlace.pruning.report import CutReport
from interlace.system.resumable import intact, keep_json


@dataclass(frozen=True)
class Fit:
    """A fitted layer.

    Attributes:
        report: on the fit.
        tensors: new values by name within the layer; none where they are not kept.
    """

    report: CutReport
    tensors: Mapping[str, Tensor]


class Store:
    """The values that the model holds in memory; fits are not kept."""

    def value(self, layer: int, weight: str, parameter: Tensor) -> Tensor:
        """Return the value of a layer's weight, in the dtype that its new value is to have."""
        return parameter.detach()

    def load(self, number: int) -> Fit | None:
        """Return a fit that was saved earlier, if there is one."""
        return None

    def save(self, number: int, fit: Fit) -> None:
        """Keep a fit by its number."""


@dataclass(frozen=True)
class CheckpointStore(Store):
    """The values that a checkpoint stores; each fit is kept in files, to resume from.

    Attributes:
        stored: the dense checkpoint's weights.
        scratch: folder for the files.
    """

    stored: StoredLayers
    scratch: Path

    def value(self, layer: int, weight: str, parameter: Tensor) -> Tensor:
        """Read a layer's weight in the stored dtype.

        Raises:
            InputError: the checkpoint holds it under another name or in another shape.
        """
        return self.stored.read(layer, weight, parameter.shape)

    def load(self, number: int) -> Fit | None:
        """Read a fit that is whole."""
        from safetensors.torch import load_file

        report_file, weights_file = self._report(number), self._weights(number)
        if not intact(report_file):
            return None
        report = CutReport.model_validate_json(report_file.read_text(encoding="utf-8"))
        if not report.kept:
            return Fit(report, {})
        if not intact(weights_file):
            return None
        tensors = load_file(weights_file)
        prefix = self.stored.name(report.folded_into or 0, "")
        return Fit(report, {name.removeprefix(prefix): value for name, value in tensors.items()})

    def save(self, number: int, fit: Fit) -> None:
        """Write a fit; its weights go first, so that a report never names absent ones."""
        layer = fit.report.folded_into
        if fit.tensors and layer is not None:
            by_name = {self.stored.name(layer, name): value for name, value in fit.tensors.items()}
            write_weights(by_name, self._weights(number))
        keep_json(self._report(number), fit.report.as_json())

    def replaced(self, reports: Sequence[CutReport]) -> dict[str, Path]:
        """Return the file of each new weight by stored name."""
        files = [self._weights(report.end) for report in reports if report.kept]
        return {name: file for file in files for name in stored_tensors(file)}

    def _report(self, number: int) -> Path:
        return self.scratch / f"layer-{number:03d}.json"

    def _weights(self, number: int) -> Path:
        return self.scratch / f"layer-{number:03d}.safetensors"
