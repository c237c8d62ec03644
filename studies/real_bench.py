"""Score models that are made from one dense checkpoint in memory.

A process opens the checkpoint once; see `begin` and `score`. Losses are kept by a digest of what
they depend on, so a study that was stopped resumes, and models that several methods choose are
scored once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.measurements.collect import collect
from interlace.measurements.sensitivity import measure_method
from interlace.model.chat import encode_training
from interlace.model.row_losses import row_losses
from interlace.params.measuring import Collect, LossCriterion, Sensitivity
from interlace.params.section import validated
from interlace.pruning.compensation import compensate, pruned
from interlace.pruning.new_values import CheckpointStore
from interlace.pruning.sparsity import sparsify
from interlace.samples.answered_rows import AnsweredRows, answered_rows
from interlace.samples.rows import iterate
from interlace.scores.table import SEARCH
from interlace.system.resumable import intact, keep_json
from studies.real_losses import HeldoutLosses, read_losses
from studies.real_rows import PLAIN, Variant
from studies.real_rules import following

SIMILARITY = "hidden_states"
SPARSE = ("wanda-2:4", "magnitude-2:4")
BATCH_TOKENS = 2048
PASSES = 110  # budget of the search


@dataclass(frozen=True)
class Inputs:
    """What a study reads and where it keeps its work.

    Attributes:
        model: the dense checkpoint.
        n_layers: its decoder's layers.
        heldout: folder of rows that models are scored on.
        calibration: folder of rows whose prompts similarity is measured on; losses are
            measured, and weights are fitted, on the first of them and their answers.
        loss_rows: calibration rows whose answers are scored as single layers go.
        search_rows: the same as sets of layers go.
        fitted_rows: calibration rows that new weights are fitted on.
        scratch: for finished measurements, which depend on the model and these rows alone.
        probes: folder of domain probes, whose similarity is measured too; `None`: there are none.
        max_ratio: share of the layers that are removed, at most, as losses are measured.
    """

    model: Path
    n_layers: int
    heldout: Path
    calibration: Path
    loss_rows: int
    search_rows: int
    fitted_rows: int
    scratch: Path
    probes: Path | None = None
    max_ratio: float = 0.4

    def name(self, variant: Variant) -> str:
        """Return a name for files of a model."""
        layers = "-".join(map(str, variant.drop)) or "all"
        fit = "" if variant.weights == PLAIN else f"_{self.fitted_rows}"
        return f"{layers}_{variant.weights}{fit}".replace(" ", "-").replace(":", "-")

    def losses_file(self, variant: Variant) -> Path:
        """Return the file that keeps a model's losses."""
        return self.scratch / "losses" / f"{self.name(variant)}.parquet"

    def fit_file(self, variant: Variant) -> Path:
        """Return the file of a compensated model's loss on calibration answers it is judged by."""
        return self.scratch / "fits" / f"{self.name(variant)}.json"

    def losses(self, variant: Variant) -> HeldoutLosses | None:
        """Read a model's losses; `None` if it was not scored yet."""
        return read_losses(self.losses_file(variant))


class Bench:
    """The open checkpoint, and the rows."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.checkpoint = Checkpoint(inputs.model)
        self.model = self.checkpoint.open_model(dtype="float32")
        self.processor = self.checkpoint.open_processor()
        self.rows = [encode_training(self.processor, row) for row in iterate(inputs.heldout)]

    def similarity(self, out: Path) -> None:
        """Measure all spans of layers on prompts."""
        folders = [self.inputs.calibration, *filter(None, [self.inputs.probes])]
        params = Collect(batch_tokens=BATCH_TOKENS)
        kept = {"params": params, "scratch": unfinished(out)}
        collect(self.model, self.processor, folders, out, provenance=self.provenance, **kept)

    def sensitivity(self, criterion: str, protected: Sequence[int], out: Path) -> None:
        """Measure layers by the loss on the answers of calibration rows."""
        rows = self.inputs.search_rows if criterion == SEARCH else self.inputs.loss_rows
        needed = {"criterion": criterion, "protected": tuple(protected)}
        measure_method(
            self.model,
            self.processor,
            self.inputs.calibration,
            out,
            needed=validated(LossCriterion, needed, "study"),
            params=Sensitivity(
                max_ratio=self.inputs.max_ratio,
                samples=rows,
                batch_tokens=BATCH_TOKENS,
                passes=PASSES,
            ),
            scratch=unfinished(out),
            provenance=self.provenance,
        )

    @property
    def provenance(self) -> dict[str, str]:
        """Return the metadata of measurements about the model."""
        parts = self.checkpoint.architecture
        counts = {"n_layers": parts.n_layers, "deepstack_layers": parts.deepstack_layers}
        return {name: str(count) for name, count in counts.items()}

    def score(self, variant: Variant) -> None:
        """Score a model and keep its losses."""
        with pruned(self.model, variant.drop, self.weights(variant)):
            rows = row_losses(self.model, self.rows, batch_tokens=BATCH_TOKENS)
        HeldoutLosses.of_rows(rows).write(self.inputs.losses_file(variant))

    def weights(self, variant: Variant) -> Mapping[nn.Parameter, Tensor]:
        """Return the new weights of a model by the dense model's parameters."""
        if variant.weights == PLAIN:
            return {}
        if variant.weights in SPARSE:
            return self._sparse(variant.weights)
        return self._compensated(variant)

    def _compensated(self, variant: Variant) -> Mapping[nn.Parameter, Tensor]:
        rows = fitted_rows(self.inputs, self.processor)
        folder = self.inputs.scratch / "compensated" / self.inputs.name(variant)
        with following(variant.weights):
            store = CheckpointStore(self.checkpoint.layers, folder)
            result = compensate(self.model, variant.drop, rows, store)
        keep_json(self.inputs.fit_file(variant), result.heldout_after)
        return result.weights

    def _sparse(self, method: str) -> Mapping[nn.Parameter, Tensor]:
        rows = fitted_rows(self.inputs, self.processor) if method.startswith("wanda") else None
        folder = self.inputs.scratch / "sparse" / method.replace(":", "-")
        dense = {weight: weight.data for weight in self.model.parameters()}
        replaced = sparsify(self.model, self.checkpoint.layers, rows, folder)
        for weight, value in dense.items():  # Wanda leaves them sparse
            weight.data = value
        weights: dict[nn.Parameter, Tensor] = {}
        for file in sorted(set(replaced.values())):
            weights |= self.checkpoint.layers.new_values(self.model, file)
        return weights


def fitted_rows(inputs: Inputs, processor: Any) -> AnsweredRows:
    """Return the calibration rows that new weights are fitted on, encoded once."""
    options = Sensitivity(samples=inputs.fitted_rows, batch_tokens=BATCH_TOKENS)
    return answered_rows(processor, inputs.calibration, inputs.scratch / "rows", options)


_BENCH: Bench


def begin(inputs: Inputs) -> None:
    """Open the bench of this process, which computes on one core."""
    global _BENCH
    torch.set_num_threads(1)
    _BENCH = Bench(inputs)


def score(variant: Variant) -> Variant:
    """Score a model on this process's bench; return it."""
    with timed(_BENCH.inputs.losses_file(variant)):
        _BENCH.score(variant)
    return variant


def measured(inputs: Inputs, criterion: str) -> Path:
    """Return the folder of a measurement: of `SIMILARITY`, or of the loss by a criterion."""
    if criterion == SIMILARITY:
        return inputs.scratch / criterion
    rows = f"{inputs.search_rows}-{PASSES}" if criterion == SEARCH else f"{inputs.loss_rows}"
    return inputs.scratch / f"{criterion}-{rows}"


def measure_once(criterion: str, protected: Sequence[int] = ()) -> None:
    """Measure on this process's bench what is not measured yet.

    Args:
        criterion: see `measured`.
        protected: layers that stay as losses are measured.
    """
    out = measured(_BENCH.inputs, criterion)
    if out.is_dir():
        return
    with timed(out):
        if criterion == SIMILARITY:
            _BENCH.similarity(out)
        else:
            _BENCH.sensitivity(criterion, protected, out)


@contextmanager
def timed(output: Path) -> Iterator[None]:
    """Write the processor's seconds of a block beside its output, unless the block resumes."""
    start, resumed = time.process_time(), unfinished(output).exists()
    yield
    if not resumed:
        keep_json(_seconds_file(output), time.process_time() - start)


def seconds(output: Path) -> float | None:
    """Return the processor's seconds behind an output; `None` where nobody knows."""
    file = _seconds_file(output)
    return float(file.read_text(encoding="utf-8")) if intact(file) else None


def unfinished(output: Path) -> Path:
    """Return the folder for the finished parts of a measurement."""
    return output.with_suffix(".unfinished")


def _seconds_file(output: Path) -> Path:
    return output.with_name(f"{output.name}.seconds.json")
